//! Sources at FTP servers: imported when they change.

use ingestd::source::Definition;

use crate::{
    ftp_rig::{CA, Ftp, Manner, Sends, Tls},
    source_rig::{SECRET, Shop, file, write},
};

const LOGIN: (&str, &str) = ("shop", SECRET);

/// Makes a shop whose daemons ask that server, and trust the authority of the tests.
async fn shop(server: &Ftp) -> Shop {
    let shop = Shop::new(None).await;
    let (ca, port) = (shop.path("ca.pem"), server.address.port());
    write(&ca, CA);
    shop.set("FETCH__FTP_PORTS", &format!("[{port}]"))
        .with("SSL_CERT_FILE", ca.to_str().unwrap())
}

fn serve(server: &Ftp, price: u32, time: &'static str) {
    server.change(|manner| {
        (manner.body, manner.time) = (file("A1", price).into_bytes(), time);
    });
}

fn n_sent(server: &Ftp) -> usize {
    let came = server.came();
    came.iter().filter(|line| line.starts_with("RETR")).count()
}

#[tokio::test]
async fn an_ftp_file_is_imported_when_it_changes() {
    let server = Ftp::start(Manner {
        login: Some(LOGIN),
        path: "out/žluť k.csv",
        ..Manner::default()
    })
    .await;
    let shop = shop(&server).await;
    let daemon = shop.daemon().await;
    let origin = format!("ftp://{}", server.address);
    let source = Definition {
        secret_ref: Some("ops".into()),
        ..Definition::new(server.url("out/%C5%BElu%C5%A5%20k.csv"))
    };
    shop.add("s", &source).await;
    shop.secret("ops", &format!("bearer {SECRET}\nfor {origin}"));
    shop.look("s").await;
    let result = shop.result("s").await;
    assert!(result.contains("basic for ftp://"), "{result}");
    shop.secret("ops", &format!("basic shop:{SECRET}\nfor ftp://elsewhere"));
    shop.look("s").await;
    let result = shop.result("s").await;
    assert!(result.contains("not for this"), "{result}");
    assert_eq!(server.came(), [""; 0]);

    shop.secret("ops", &format!("basic shop:{SECRET}\nfor {origin}"));
    serve(&server, 10, "20260102030405");
    shop.look("s").await;
    assert_eq!(shop.result("s").await, "imported");
    assert_eq!(shop.products().await, "A1 Lamp 10");
    let name: String = shop.rig.ask("SELECT file_name FROM catalog.imports").await;
    assert_eq!(name, "žluť k.csv");
    assert_eq!(n_sent(&server), 1);

    // The same version is not even sent again; under another time it is, and not imported.
    shop.look("s").await;
    assert_eq!(shop.result("s").await, "unchanged");
    assert_eq!(n_sent(&server), 0);
    serve(&server, 10, "20260102030406");
    shop.look("s").await;
    assert_eq!(shop.result("s").await, "unchanged");
    assert_eq!(n_sent(&server), 1);
    assert_eq!(shop.n_imports().await, 1);

    serve(&server, 12, "20260102030407");
    shop.look("s").await;
    assert_eq!(shop.products().await, "A1 Lamp 12");
    // A time that is not over yet tells no version from the next.
    for price in [13, 14] {
        serve(&server, price, "29990102030407");
        shop.look("s").await;
        assert_eq!(shop.products().await, format!("A1 Lamp {price}"));
    }

    // What breaks off may come whole the next time; a wrong login is not tried again.
    server.came();
    server.change(|manner| manner.sends = Sends::Only(20));
    shop.look("s").await;
    let result = shop.result("s").await;
    assert!(result.contains("20 bytes came of"), "{result}");
    assert_eq!(n_sent(&server), 4);
    server.change(|manner| manner.login = Some(("shop", "other")));
    shop.look("s").await;
    let result = shop.result("s").await;
    assert!(result.starts_with("failed: "), "{result}");
    assert!(result.contains("the login was refused"), "{result}");
    let logins = server.came();
    let logins = logins.iter().filter(|line| line.starts_with("PASS"));
    assert_eq!(logins.count(), 1);
    assert_eq!(shop.n_imports().await, 4);

    let told = "SELECT concat_ws(' ', (SELECT string_agg(s::text, ' ') FROM catalog.sources s),
        (SELECT string_agg(j::text, ' ') FROM ingestd.job_history j),
        (SELECT string_agg(r::text, ' ') FROM ingestd.runs r))";
    let told: String = shop.rig.ask(told).await;
    assert!(!told.contains(SECRET) && !daemon.log().contains(SECRET));
    assert!(told.contains("ops"));
}

#[tokio::test]
async fn an_ftps_file_is_encrypted_all_the_way() {
    let server = Ftp::start(Manner {
        login: Some(LOGIN),
        tls: Tls::Demanded,
        ..Manner::default()
    })
    .await;
    let shop = shop(&server).await;
    let _daemon = shop.daemon().await;
    let origin = format!("ftps://{}", server.address);
    shop.secret("ops", &format!("basic shop:{SECRET}\nfor {origin}"));
    let source = Definition {
        secret_ref: Some("ops".into()),
        ..Definition::new(server.url("a.csv"))
    };
    shop.add("s", &source).await;
    serve(&server, 10, "20260102030405");
    shop.look("s").await;
    assert_eq!(shop.result("s").await, "imported");
    assert_eq!(shop.products().await, "A1 Lamp 10");
    let came = server.came();
    assert!(came.contains(&"PROT P".to_owned()), "{came:?}");
    shop.look("s").await;
    assert_eq!(shop.result("s").await, "unchanged");
    assert_eq!(n_sent(&server), 0);

    // Once, without a source.
    let location = server.url("a.csv");
    shop.rig
        .sql(&format!(
            "INSERT INTO ingestd.jobs (kind, tenant, args) VALUES ('catalog.fetch_file', 'acme',
               '{{\"location\": \"{location}\", \"tenant\": \"acme\", \"secret_ref\": \"ops\"}}')"
        ))
        .await;
    shop.rig.until_idle().await;
    let of = "SELECT string_agg(tenant, ' ' ORDER BY id) FROM catalog.imports";
    assert_eq!(shop.rig.ask::<String>(of).await, "default acme");

    // Whoever has a certificate of the authority, for another host, is nobody to log in at.
    server.came();
    server.change(|manner| manner.tls = Tls::OfAnother);
    shop.look("s").await;
    let result = shop.result("s").await;
    assert!(result.contains("certificate"), "{result}");
    assert!(server.came().iter().all(|line| line == "AUTH TLS"));
}
