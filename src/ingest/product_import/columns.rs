//! Which of the optional columns a file has.
//!
//! A column that the file does not have changes nothing in the catalog; an
//! empty cell of a column that it has clears the value. `code` and `name` are
//! always there and have no bit.

/// A set of optional columns.
///
/// Its bits stand in `update.sql` and, through [`Columns::salt`], in stored
/// hashes: never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Columns(u16);

impl Columns {
    /// The `description` column.
    pub const DESCRIPTION: Self = Self(1);
    /// The `brand` column.
    pub const BRAND: Self = Self(1 << 1);
    /// The `category` column.
    pub const CATEGORY: Self = Self(1 << 2);
    /// The `price` column.
    pub const PRICE: Self = Self(1 << 3);
    /// The `currency` column; it says something only beside a price.
    pub const CURRENCY: Self = Self(1 << 4);
    /// The `stock` column.
    pub const STOCK: Self = Self(1 << 5);
    /// The `ean` column.
    pub const EAN: Self = Self(1 << 6);
    /// The `url` column.
    pub const URL: Self = Self(1 << 7);
    /// The `weight` column.
    pub const WEIGHT: Self = Self(1 << 8);
    /// The `updated_at` column.
    pub const UPDATED_AT: Self = Self(1 << 9);
    /// Any extra column; all of them together are the product's attributes.
    pub const ATTRIBUTES: Self = Self(1 << 10);

    /// Only `code` and `name`.
    pub const NONE: Self = Self(0);
    /// Every optional column, extra ones too.
    pub const ALL: Self = Self((1 << 11) - 1);

    /// Returns the set with `other` added.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the set with `other` taken out.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns whether every column of `other` is in the set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the bits as `update.sql` reads them.
    pub(super) fn bits(self) -> i32 {
        i32::from(self.0)
    }

    /// Returns a row's hash as it is stored: mixed with the set.
    ///
    /// An empty cell clears a value and an absent column keeps it, so two rows
    /// that read the same are not the same row when their files have different
    /// columns.
    #[must_use]
    pub(super) const fn salt(self, hash: i64) -> i64 {
        // 2^64 divided by the golden ratio spreads the few bits over the word.
        hash ^ (self.0 as i64).wrapping_mul(0x9E37_79B9_7F4A_7C15_u64.cast_signed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_added() {
        let columns = Columns::NONE.with(Columns::PRICE).with(Columns::BRAND);
        assert!(columns.has(Columns::PRICE) && columns.has(Columns::BRAND));
        assert!(!columns.has(Columns::STOCK) && !columns.has(Columns::ALL));
        assert!(!columns.without(Columns::PRICE).has(Columns::PRICE));
        assert!(Columns::ALL.has(Columns::ATTRIBUTES.with(Columns::DESCRIPTION)));
    }

    #[test]
    fn the_same_row_of_other_columns_has_another_hash() {
        let sets = [Columns::NONE, Columns::BRAND, Columns::PRICE, Columns::ALL];
        for (i, one) in sets.iter().enumerate() {
            for other in sets.iter().skip(i + 1) {
                assert_ne!(one.salt(7), other.salt(7));
            }
        }
    }

    #[test]
    fn stored_hashes_stay_what_they_are() {
        assert_eq!(Columns::NONE.salt(7), 7);
        assert_eq!(
            Columns::ALL.salt(7),
            7 ^ 2047_i64.wrapping_mul(-7_046_029_254_386_353_131)
        );
    }
}
