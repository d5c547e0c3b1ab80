//! Files of an FTP server that does as it should, and of one that does not.

use std::{collections::HashMap, time::Duration};

use ingestd::{
    config,
    fetch::{FetchError, Fetcher, FtpRequest},
};

use crate::{
    ftp_rig::{Ftp, Manner, Say, Sends, Tls},
    process::PATIENCE,
};

/// Long enough for a busy machine, and for nobody to wait for.
const LIMIT: Duration = Duration::from_mins(2);

fn settings(server: &Ftp) -> config::Fetch {
    config::Fetch {
        allow_private: vec!["127.0.0.1".to_owned()],
        ftp_ports: vec![server.address.port()],
        connect_timeout: Duration::from_secs(40),
        read_timeout: Duration::from_secs(40),
        ..config::Fetch::default()
    }
}

fn request(server: &Ftp) -> FtpRequest {
    FtpRequest {
        url: server.url("a.csv"),
        login: None,
        known: None,
    }
}

/// Returns a file and what its version is.
async fn fetch(
    settings: &config::Fetch,
    request: FtpRequest,
    max_bytes: u64,
    limit: Duration,
) -> Result<Option<(Vec<u8>, Option<String>)>, FetchError> {
    let fetcher = Fetcher::new(settings);
    let Some(mut file) = fetcher.ftp(request, max_bytes, limit).await? else {
        return Ok(None);
    };
    let mut whole = Vec::new();
    while let Some(piece) = file.piece().await? {
        whole.extend(piece);
    }
    assert_eq!(file.piece().await?, None);
    Ok(Some((whole, file.version())))
}

/// Returns why the server's file is not taken.
async fn error(settings: &config::Fetch, request: FtpRequest, max_bytes: u64) -> FetchError {
    let fetched = fetch(settings, request.clone(), max_bytes, LIMIT).await;
    match fetched {
        Err(error) => error,
        Ok(got) => panic!("{}: {got:?}", request.url),
    }
}

/// Returns why a file is not taken of a server that says such things.
async fn why(says: &[(&'static str, Say)]) -> String {
    let says = says.iter().copied().collect::<HashMap<_, _>>();
    let server = Ftp::start(Manner {
        says,
        ..Manner::default()
    })
    .await;
    error(&settings(&server), request(&server), 1000)
        .await
        .to_string()
}

#[tokio::test]
async fn a_file_comes_as_it_is_and_once() {
    let body: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let server = Ftp::start(Manner {
        body: body.clone(),
        ..Manner::default()
    })
    .await;
    let settings = settings(&server);
    let whole = fetch(&settings, request(&server), 2_000_000, LIMIT).await;
    let version = Some("1200000 20260102030405".to_owned());
    assert!(whole == Ok(Some((body, version.clone()))));
    let expected = [
        "USER anonymous",
        "PASS anonymous@",
        "TYPE I",
        "SIZE a.csv",
        "MDTM a.csv",
        "EPSV",
        "RETR a.csv",
        "SIZE a.csv",
        "MDTM a.csv",
    ];
    assert_eq!(server.came()[..9], expected);

    let known = FtpRequest {
        known: version,
        ..request(&server)
    };
    let again = fetch(&settings, known.clone(), 2_000_000, LIMIT).await;
    assert_eq!(again, Ok(None));
    let came = server.came();
    assert!(
        !came.iter().any(|line| line.starts_with("RETR")),
        "{came:?}"
    );
    // Another time, or another size, is another version.
    server.change(|manner| manner.time = "20260102030406");
    assert!(matches!(
        fetch(&settings, known.clone(), 2_000_000, LIMIT).await,
        Ok(Some(_))
    ));
    server.change(|manner| {
        manner.time = "20260102030405";
        manner.body.pop();
    });
    assert!(matches!(
        fetch(&settings, known, 2_000_000, LIMIT).await,
        Ok(Some(_))
    ));
}

#[tokio::test]
async fn a_server_that_knows_little_serves_all_the_same() {
    let server = Ftp::start(Manner {
        knows_versions: false,
        knows_epsv: false,
        body: b"abc".to_vec(),
        ..Manner::default()
    })
    .await;
    let got = fetch(&settings(&server), request(&server), 3, LIMIT).await;
    assert_eq!(got, Ok(Some((b"abc".to_vec(), None))));
    assert!(server.came().contains(&"PASV".to_owned()));
}

/// `PASV` names an address, which would be whatever the server wants us to connect to.
#[tokio::test]
async fn a_file_comes_from_nowhere_but_the_server() {
    let server = Ftp::start(Manner {
        knows_epsv: false,
        ..Manner::default()
    })
    .await;
    let got = fetch(&settings(&server), request(&server), 1000, LIMIT).await;
    assert!(matches!(got, Ok(Some(_))), "{got:?}");
    assert_eq!(server.n_elsewhere(), 0);
    for (command, answer) in [
        ("EPSV", "229 ok (|||22|)\r\n"),
        ("EPSV", "229 ok (|1|10.0.0.1|2222|)\r\n"),
        ("EPSV", "229 ok\r\n"),
    ] {
        let why = why(&[(command, Say::This(answer))]).await;
        assert!(why.contains("names no port"), "{answer}: {why}");
    }
    let pasv = [
        ("EPSV", Say::This("502 no\r\n")),
        ("PASV", Say::This("227 ok (127,0,0,1,0,22)\r\n")),
    ];
    let told = why(&pasv).await;
    assert!(told.contains("names no port"), "{told}");
}

#[tokio::test]
async fn nobody_is_connected_to_who_may_not_be() {
    let server = Ftp::start(Manner::default()).await;
    let strict = config::Fetch {
        allow_private: Vec::new(),
        ..settings(&server)
    };
    let error = error(&strict, request(&server), 1000).await;
    assert!(matches!(error, FetchError::Address { .. }), "{error}");
    let by_name = FtpRequest {
        url: format!("ftp://localhost:{}/a.csv", server.address.port()),
        ..request(&server)
    };
    let error = self::error(&strict, by_name, 1000).await;
    assert!(matches!(error, FetchError::Address { .. }), "{error}");
    let hidden = FtpRequest {
        url: format!("{}%0d%0aDELE%20a.csv", server.url("a.csv")),
        ..request(&server)
    };
    let error = self::error(&settings(&server), hidden, 1000).await;
    assert!(error.to_string().contains("control characters"), "{error}");
    assert_eq!(server.came(), [""; 0]);
}

#[tokio::test]
async fn silence_ends() {
    let silent = |step| (step, Sends::Whole);
    let steps = [
        "WELCOME", "USER", "PASS", "TYPE", "SIZE", "MDTM", "EPSV", "RETR", "SENT",
    ];
    let cases = steps.map(silent).into_iter();
    for (step, sends) in cases.chain([("none", Sends::Stalls(5))]) {
        let server = Ftp::start(Manner {
            says: HashMap::from([(step, Say::Nothing)]),
            sends,
            ..Manner::default()
        })
        .await;
        let short = config::Fetch {
            read_timeout: Duration::from_millis(500),
            ..settings(&server)
        };
        // The whole may take an hour, and this does not.
        let fetched = fetch(&short, request(&server), 1000, Duration::from_hours(1));
        let fetched = tokio::time::timeout(PATIENCE, fetched).await.expect(step);
        assert!(
            matches!(fetched, Err(FetchError::Timeout(_))),
            "{step}: {fetched:?}"
        );
    }
}

#[tokio::test]
async fn talk_without_end_ends() {
    for (step, say, told) in [
        ("WELCOME", Say::Forever("220 x"), "a line of it has no end"),
        (
            "WELCOME",
            Say::Forever("220-x\r\n"),
            "an answer of it has no end",
        ),
        ("WELCOME", Say::Forever("120 wait\r\n"), "to wait again"),
        ("USER", Say::Forever("331-x\r\n"), "an answer of it"),
        ("MDTM", Say::Forever("213"), "a line of it"),
        ("RETR", Say::Forever("150-"), "a line of it"),
        ("SENT", Say::Forever("226-\r\n"), "an answer of it"),
        ("WELCOME", Say::This("SSH-2.0-x\r\n"), "no FTP"),
        ("WELCOME", Say::This("HTTP/1.1 400 no\r\n"), "no FTP"),
        ("WELCOME", Say::Bye, "hung up"),
        ("RETR", Say::Bye, "hung up"),
    ] {
        let why = why(&[(step, say)]).await;
        assert!(why.contains(told), "{step} {say:?}: {why}");
    }
}

#[tokio::test]
async fn a_file_without_end_ends() {
    let server = Ftp::start(Manner {
        sends: Sends::Floods,
        ..Manner::default()
    })
    .await;
    let settings = settings(&server);
    let error = error(&settings, request(&server), 100_000).await;
    assert_eq!(error, FetchError::TooLarge(100_000));
    // One that says so is not begun.
    server.came();
    let error = self::error(&settings, request(&server), 26).await;
    assert_eq!(error, FetchError::TooLarge(26));
    assert!(!server.came().contains(&"RETR a.csv".to_owned()));
    // Never silent, and never done.
    server.change(|manner| manner.sends = Sends::Drips);
    let limit = Duration::from_secs(2);
    let dripped = fetch(&settings, request(&server), 1 << 40, limit).await;
    assert!(
        matches!(dripped, Err(FetchError::Timeout(_))),
        "{dripped:?}"
    );
    server.change(|manner| {
        manner.says.insert("USER", Say::Nothing);
    });
    let never = fetch(&settings, request(&server), 1000, limit).await;
    assert!(matches!(never, Err(FetchError::Timeout(_))), "{never:?}");
}

#[tokio::test]
async fn a_file_that_is_not_whole_is_none() {
    let server = Ftp::start(Manner::default()).await;
    let settings = settings(&server);
    let fails = async |change: fn(&mut Manner), told: &str| {
        server.change(|manner| {
            *manner = Manner::default();
            change(manner);
        });
        let error = error(&settings, request(&server), 1000).await.to_string();
        assert!(error.contains(told), "{told}: {error}");
    };
    let short = |manner: &mut Manner| manner.sends = Sends::Only(20);
    fails(short, "20 bytes came of the 27").await;
    let late = |manner: &mut Manner| manner.time_after = Some("20260102030406");
    fails(late, "changed while it came").await;
    // The server knows more than that the connection broke.
    let broken = |manner: &mut Manner| manner.sends = Sends::Breaks(20);
    fails(broken, "answered 451, the file broke off").await;
    for (say, told) in [
        (Say::Bye, "hung up"),
        (
            Say::This("426 no more\r\n"),
            "answered 426, the file broke off",
        ),
        (Say::This("451 disk\r\n"), "answered 451"),
        (Say::This("150 more?\r\n"), "answered 150"),
    ] {
        server.change(|manner| *manner = Manner::default());
        server.change(|manner| {
            manner.says.insert("SENT", say);
        });
        let error = error(&settings, request(&server), 1000).await.to_string();
        assert!(error.contains(told), "{told}: {error}");
    }
    // Nothing is known of its length, and yet it is known that it broke off.
    server.change(|manner| {
        manner.knows_versions = false;
    });
    let error = error(&settings, request(&server), 1000).await.to_string();
    assert!(error.contains("answered 150"), "{error}");
}

#[tokio::test]
async fn a_refusal_says_what_to_do_and_no_secret() {
    let server = Ftp::start(Manner {
        login: Some(("shop", "sesame")),
        ..Manner::default()
    })
    .await;
    let settings = settings(&server);
    let told = async |login: Option<(&str, &str)>, path: &str| {
        let request = FtpRequest {
            url: server.url(path),
            login: login.map(|(user, password)| (user.to_owned(), password.into())),
            known: None,
        };
        assert!(!format!("{request:?}").contains("ame"), "{request:?}");
        let error = error(&settings, request, 1000).await.to_string();
        assert!(!error.contains("sesame"), "{error}");
        error
    };
    let wrong = told(Some(("shop", "sesame2")), "a.csv").await;
    assert!(
        wrong.contains("530, the login was refused: do user"),
        "{wrong}"
    );
    let none = told(None, "a.csv").await;
    assert!(none.contains("it wants a user and a password"), "{none}");
    let gone = told(Some(("shop", "sesame")), "b.csv").await;
    assert!(gone.contains("550, no such file"), "{gone}");
    let split = told(Some(("shop", "sesame\r\nDELE a.csv")), "a.csv").await;
    assert!(split.contains("control characters"), "{split}");
    let came = server.came();
    assert!(!came.iter().any(|line| line.contains("DELE")), "{came:?}");
    // In the clear where the server wants TLS, and the other way round.
    let url = server.url("a.csv");
    server.change(|manner| manner.tls = Tls::Demanded);
    let plain = FtpRequest {
        url: url.clone(),
        ..request(&server)
    };
    let error = error(&settings, plain, 1000).await.to_string();
    assert!(
        error.contains("write ftps:// in place of ftp://"),
        "{error}"
    );
    server.change(|manner| manner.tls = Tls::Unknown);
    let tls = FtpRequest {
        url: url.replace("ftp://", "ftps://"),
        ..request(&server)
    };
    server.came();
    let error = self::error(&settings, tls, 1000).await.to_string();
    assert!(error.contains("502, it begins no TLS"), "{error}");
    assert_eq!(server.came(), ["AUTH TLS"], "nothing is said in the clear");
}

/// The authority of the test's certificate is none that this process trusts.
#[tokio::test]
async fn who_cannot_prove_to_be_the_server_is_told_nothing() {
    let server = Ftp::start(Manner {
        tls: Tls::Demanded,
        ..Manner::default()
    })
    .await;
    let error = error(&settings(&server), request(&server), 1000).await;
    let is_told = matches!(&error, FetchError::Connect { why, .. } if why.contains("certificate"));
    assert!(is_told, "{error}");
    assert_eq!(server.came(), ["AUTH TLS"]);
    // What somebody on the way puts behind the last answer in the clear is no answer.
    server.change(|manner| {
        let more = "234 go on\r\n331 and the password?\r\n";
        manner.says.insert("AUTH", Say::This(more));
    });
    let error = self::error(&settings(&server), request(&server), 1000).await;
    assert!(error.to_string().contains("in the clear"), "{error}");
}
