-- The first notes after $1, of $2 products and those that the last note has more, and these products
-- as they are now.
SELECT n.seq, n.product_id, p.id IS NOT NULL AND p.archived_at IS NULL AS is_live,
       p.tenant, p.code, p.name, p.description, p.brand, p.category, p.ean, p.url, p.weight,
       extract(epoch FROM p.source_updated_at)::int8 AS updated_at, pp.price, pp.currency, ps.qty
FROM (SELECT f.seq, u.product_id, u.nth
      FROM (SELECT seq, product_ids, sum(n_products) OVER (ORDER BY seq) - n_products AS n_before
            FROM (SELECT seq, product_ids, n_products FROM catalog.search_outbox   -- search_outbox_pkey
                  WHERE seq > $1 ORDER BY seq LIMIT $2) o) f
      CROSS JOIN LATERAL unnest(f.product_ids) WITH ORDINALITY u (product_id, nth)
      WHERE f.n_before < $2) n
LEFT JOIN LATERAL (SELECT * FROM catalog.products WHERE id = n.product_id LIMIT 1) p ON true
LEFT JOIN LATERAL (                         -- product_prices_live
  SELECT price, currency FROM catalog.product_prices
  WHERE product_id = n.product_id AND archived_at IS NULL LIMIT 1) pp ON true
LEFT JOIN LATERAL (                         -- product_stocks_live
  SELECT qty FROM catalog.product_stocks
  WHERE product_id = n.product_id AND archived_at IS NULL LIMIT 1) ps ON true
ORDER BY n.seq, n.nth
