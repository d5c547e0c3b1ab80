//! Mail on completion, by a daemon of its own to a mail server of the test's own.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::multipart::{Form, Part};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{process::Daemon, queue_rig::Rig};

/// The password that the server asks for. It must not turn up in a log or in the database.
const PASSWORD: &str = "canary-mail-password";

/// One mail that was taken.
#[derive(Debug, Clone)]
struct Taken {
    from: String,
    to: Vec<String>,
    data: String,
    login: Option<String>,
}

#[derive(Default)]
struct Inner {
    taken: Vec<Taken>,
    /// What the next RCPTs are answered with; out of answers, 250.
    replies: VecDeque<&'static str>,
    n_connections: usize,
}

/// Speaks as much SMTP (RFC 5321) as it takes.
struct MailServer {
    address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
    task: JoinHandle<()>,
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl MailServer {
    #[expect(clippy::disallowed_methods, reason = "the test ends it")]
    async fn start(replies: impl Into<VecDeque<&'static str>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Inner {
            replies: replies.into(),
            ..Inner::default()
        };
        let inner = Arc::new(Mutex::new(inner));
        let shared = Arc::clone(&inner);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.lock().unwrap().n_connections += 1;
                tokio::spawn(converse(stream, Arc::clone(&shared)));
            }
        });
        Self {
            address,
            inner,
            task,
        }
    }

    fn taken(&self) -> Vec<Taken> {
        self.inner.lock().unwrap().taken.clone()
    }

    async fn daemon(&self, rig: &Rig, folder: &TempDir, more: &[(&str, &str)]) -> Daemon {
        let port = self.address.port().to_string();
        let password = folder.path().join("mail-password");
        std::fs::write(&password, format!("{PASSWORD}\n")).unwrap();
        let password = password.display().to_string();
        let mut settings = vec![
            ("INGESTD_MAIL__HOST", "127.0.0.1"),
            ("INGESTD_MAIL__PORT", port.as_str()),
            ("INGESTD_MAIL__SECURITY", "none"),
            ("INGESTD_MAIL__FROM", "ingestd <ingestd@example.com>"),
            (
                "INGESTD_MAIL__TO",
                r#"["ops@example.com", "Jane <jane@example.com>"]"#,
            ),
            ("INGESTD_MAIL__LINK", "https://ingest.example.com"),
            ("INGESTD_MAIL__USER", "ingestd"),
            ("INGESTD_MAIL__PASSWORD_FILE", password.as_str()),
            ("INGESTD_KINDS__SYSTEM__MAIL__RETRY_FIRST", "50ms"),
            ("INGESTD_KINDS__SYSTEM__MAIL__RETRY_CAP", "200ms"),
            ("INGESTD_LOG__FILTER", "debug"),
        ];
        settings.extend_from_slice(more);
        Daemon::start(rig.url(), folder.path(), &settings).await
    }
}

async fn converse(stream: TcpStream, inner: Arc<Mutex<Inner>>) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let mut now = Taken {
        from: String::new(),
        to: Vec::new(),
        data: String::new(),
        login: None,
    };
    write.write_all(b"220 mail.test ESMTP\r\n").await.unwrap();
    while let Ok(Some(line)) = lines.next_line().await {
        let verb = line
            .split([' ', ':'])
            .next()
            .unwrap_or_default()
            .to_uppercase();
        let reply = match verb.as_str() {
            "EHLO" => "250-mail.test\r\n250-8BITMIME\r\n250 AUTH PLAIN",
            "AUTH" => {
                let given = line.rsplit(' ').next().unwrap();
                let given = STANDARD.decode(given).unwrap();
                now.login = Some(String::from_utf8(given).unwrap());
                "235 welcome"
            }
            "MAIL" => {
                now.from.clone_from(&line);
                now.to.clear();
                "250 ok"
            }
            "RCPT" => {
                let reply = inner.lock().unwrap().replies.pop_front();
                let reply = reply.unwrap_or("250 ok");
                if reply.starts_with("250") {
                    now.to.push(line.clone());
                }
                reply
            }
            "DATA" => {
                write.write_all(b"354 go on\r\n").await.unwrap();
                now.data.clear();
                while let Ok(Some(line)) = lines.next_line().await {
                    if line == "." {
                        break;
                    }
                    now.data.push_str(&line);
                    now.data.push('\n');
                }
                inner.lock().unwrap().taken.push(now.clone());
                "250 taken"
            }
            "QUIT" => "221 bye",
            _ => "250 ok",
        };
        if write
            .write_all(format!("{reply}\r\n").as_bytes())
            .await
            .is_err()
        {
            return;
        }
    }
}

/// Uploads a file and waits until its import has ended.
async fn import(rig: &Rig, daemon: &Daemon, name: &str, file: &'static str) -> i64 {
    let part = Part::bytes(file.as_bytes()).file_name(name.to_owned());
    let request = reqwest::Client::new()
        .post(daemon.url("/api/v1/import/products"))
        .multipart(Form::new().part("file", part));
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    let id = answer["data"]["jobId"].as_i64().unwrap();
    rig.until(&format!(
        "(SELECT finished_at IS NOT NULL FROM ingestd.runs WHERE id = {id})"
    ))
    .await;
    id
}

const FILE: &str = "code,name,price\nA,Anna,1.5\nB,Bert,2\nC,,3\n";

#[tokio::test]
async fn people_are_told_of_an_import_once_each() {
    let (rig, folder) = (Rig::new().await, TempDir::new().unwrap());
    // The first recipient is served, the second one put off twice.
    let server = MailServer::start(["250 ok", "451 later", "421 later"]).await;
    let mut daemon = server.daemon(&rig, &folder, &[]).await;
    let id = import(&rig, &daemon, "products.csv", FILE).await;
    rig.until("EXISTS (SELECT FROM ingestd.job_history WHERE kind = 'system.mail')")
        .await;
    let taken = server.taken();
    let to: Vec<_> = taken.iter().map(|mail| mail.to.clone()).collect();
    assert_eq!(
        to,
        [
            ["RCPT TO:<ops@example.com>"],
            ["RCPT TO:<jane@example.com>"]
        ]
    );
    let job: i64 = rig
        .ask("SELECT id FROM ingestd.job_history WHERE kind = 'system.mail'")
        .await;
    for mail in &taken {
        assert!(mail.from.starts_with("MAIL FROM:<ingestd@example.com>"));
        let login = format!("\0ingestd\0{PASSWORD}");
        assert_eq!(mail.login.as_deref(), Some(login.as_str()));
        for part in [
            "Subject: imported with errors: products.csv\n".to_owned(),
            format!("Message-ID: <ingestd-job-{job}-mail@example.com>\n"),
            "new products                2\n".to_owned(),
            "rows with errors            1\n".to_owned(),
            format!("https://ingest.example.com/api/v1/import/status/{id}\n"),
        ] {
            assert!(mail.data.contains(&part), "{part} in {}", mail.data);
        }
    }
    let failed = "SELECT count(*) FROM ingestd.job_attempts WHERE kind = 'system.mail'";
    assert_eq!(rig.ask::<i64>(failed).await, 2);
    assert!(!daemon.log().contains(PASSWORD));
    assert!(daemon.terminate().success());
}

#[tokio::test]
async fn a_recipient_that_is_refused_keeps_no_mail_from_the_others() {
    let (rig, folder) = (Rig::new().await, TempDir::new().unwrap());
    let server = MailServer::start(["550 nobody of that name"]).await;
    let mut daemon = server.daemon(&rig, &folder, &[]).await;
    import(&rig, &daemon, "products.csv", FILE).await;
    rig.until("EXISTS (SELECT FROM ingestd.dead_jobs WHERE kind = 'system.mail')")
        .await;
    let told: Vec<_> = server.taken().into_iter().map(|mail| mail.to).collect();
    assert_eq!(told, [["RCPT TO:<jane@example.com>"]]);
    let error: String = rig.ask("SELECT error FROM ingestd.dead_jobs").await;
    assert!(
        error.contains("ops@example.com") && error.contains("nobody of that name"),
        "{error}"
    );
    assert!(daemon.terminate().success());
}

#[tokio::test]
async fn the_name_of_a_file_adds_nothing_to_a_mail_s_head() {
    let (rig, folder) = (Rig::new().await, TempDir::new().unwrap());
    let server = MailServer::start([]).await;
    let mut daemon = server.daemon(&rig, &folder, &[]).await;
    let id = import(&rig, &daemon, "products.csv", FILE).await;
    rig.until("EXISTS (SELECT FROM ingestd.job_history WHERE kind = 'system.mail')")
        .await;
    rig.sql(&format!(
        "UPDATE catalog.imports SET file_name = E'a\\r\\nBcc: victim@example.com\\r\\n.\\r\\nMAIL FROM:<x@y>' WHERE id = {id};
         UPDATE ingestd.runs SET triggered_by = E'jane@example.com\\r\\nRCPT TO:<victim@example.com>' WHERE id = {id};
         INSERT INTO ingestd.jobs (kind, queue, args)
         VALUES ('system.mail', 'mail', '{{\"import\": {id}}}')"
    ))
    .await;
    rig.until("(SELECT count(*) = 2 FROM ingestd.job_history WHERE kind = 'system.mail')")
        .await;
    let taken = server.taken();
    assert_eq!(taken.len(), 4);
    for mail in taken {
        assert_eq!(mail.to.len(), 1);
        assert!(!mail.to[0].contains("victim"));
        let (head, _) = mail.data.split_once("\n\n").unwrap();
        assert!(!head.lines().any(|line| line.starts_with("Bcc")), "{head}");
    }
    assert!(daemon.terminate().success());
}

#[tokio::test]
async fn an_import_that_failed_is_told_of_with_its_reason() {
    let (rig, folder) = (Rig::new().await, TempDir::new().unwrap());
    let server = MailServer::start([]).await;
    let mut daemon = server.daemon(&rig, &folder, &[]).await;
    rig.sql(
        "WITH run AS (INSERT INTO ingestd.runs (system, job_kind, triggered_by, params)
                      VALUES ('product_import', 'product_import.run', 'test', '{}') RETURNING id),
         log AS (INSERT INTO catalog.imports (id, type, file_name, file_size_bytes, file_sha256)
                 SELECT id, 'PARTS', 'broken.csv', 1, decode(repeat('00', 32), 'hex') FROM run)
         INSERT INTO ingestd.jobs (kind, queue, run_id, args)
         SELECT 'product_import.run', 'import', id, jsonb_build_object('run_id', id) FROM run",
    )
    .await;
    rig.until("EXISTS (SELECT FROM ingestd.job_history WHERE kind = 'system.mail')")
        .await;
    let taken = server.taken();
    assert_eq!(taken.len(), 2);
    for mail in taken {
        assert!(
            mail.data.contains("Subject: import failed: broken.csv\n"),
            "{}",
            mail.data
        );
        assert!(mail.data.contains("The reason: "), "{}", mail.data);
    }
    assert!(daemon.terminate().success());
}

/// An import of tenant `acme` that was under way when nobody worked on it any more.
async fn abandoned(rig: &Rig, is_dry: bool, state: &str) -> i64 {
    rig.ask(&format!(
        "WITH run AS (
           INSERT INTO ingestd.runs (system, job_kind, tenant, triggered_by, params, state, retry_count,
             started_at, heartbeat_at)
           VALUES ('product_import', 'product_import.run', 'acme', 'test', '{{}}', '{state}', 100,
             now(), now() - interval '1 day') RETURNING id)
         INSERT INTO catalog.imports (id, tenant, type, file_name, file_size_bytes, file_sha256, dry_run)
         SELECT id, 'acme', 'PARTS', 'abandoned.csv', 1, decode(repeat('00', 32), 'hex'), {is_dry}
         FROM run RETURNING id"
    ))
    .await
}

#[tokio::test]
async fn an_import_that_nobody_worked_on_is_told_of_and_a_rehearsal_is_not() {
    let (rig, folder) = (Rig::new().await, TempDir::new().unwrap());
    let server = MailServer::start([]).await;
    abandoned(&rig, true, "running").await;
    let real = abandoned(&rig, false, "running").await;
    let mut daemon = server.daemon(&rig, &folder, &[]).await;
    rig.sql("INSERT INTO ingestd.jobs (kind, queue) VALUES ('system.recover_runs', 'system')")
        .await;
    rig.until("EXISTS (SELECT FROM ingestd.job_history WHERE kind = 'system.mail')")
        .await;
    let of = "SELECT string_agg(concat_ws(' ', tenant, args ->> 'import'), ', ')
              FROM ingestd.all_jobs WHERE kind = 'system.mail'";
    assert_eq!(rig.ask::<String>(of).await, format!("acme {real}"));
    let state = "SELECT string_agg(state::text, ' ') FROM ingestd.runs";
    assert_eq!(rig.ask::<String>(state).await, "failed failed");
    assert!(daemon.terminate().success());
}

#[tokio::test]
async fn a_rehearsal_that_is_given_up_is_not_told_of() {
    let (rig, folder) = (Rig::new().await, TempDir::new().unwrap());
    let server = MailServer::start([]).await;
    let mut daemon = server.daemon(&rig, &folder, &[]).await;
    for is_dry in [true, false] {
        let id = abandoned(&rig, is_dry, "pending").await;
        rig.sql(&format!(
            "INSERT INTO ingestd.jobs (kind, queue, run_id, args)
             VALUES ('product_import.run', 'import', {id}, '{{\"run_id\": {id}}}')"
        ))
        .await;
    }
    rig.until("(SELECT count(*) = 2 FROM ingestd.dead_jobs WHERE kind = 'product_import.run')")
        .await;
    let n = "SELECT count(*) FROM ingestd.all_jobs WHERE kind = 'system.mail'";
    assert_eq!(rig.ask::<i64>(n).await, 1);
    assert!(daemon.terminate().success());
}

#[tokio::test]
async fn nobody_is_written_to_where_no_server_is_configured() {
    let (rig, folder) = (Rig::new().await, TempDir::new().unwrap());
    let mut daemon = Daemon::start(rig.url(), folder.path(), &[]).await;
    import(&rig, &daemon, "products.csv", FILE).await;
    let jobs = "SELECT count(*) FROM ingestd.all_jobs WHERE kind = 'system.mail'";
    assert_eq!(rig.ask::<i64>(jobs).await, 0);
    assert!(daemon.terminate().success());
}
