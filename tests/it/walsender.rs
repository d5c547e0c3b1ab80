//! The little of the replication protocol that makes a standby hold the primary's horizon.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
};

use sqlx::{PgPool, postgres::PgConnectOptions};

/// A standby that said what its oldest snapshot is; dropped, it is gone.
pub(crate) struct Walsender {
    _stream: UnixStream,
}

impl Walsender {
    /// Begins physical replication, `with` a slot or without, and sends the present transaction
    /// as the oldest that the standby still needs.
    pub(crate) async fn feed_back(pool: &PgPool, url: &str, with: &str) -> Self {
        let (lsn, xid): (String, String) =
            sqlx::query_as("SELECT pg_current_wal_flush_lsn()::text, pg_current_xact_id()::text")
                .fetch_one(pool)
                .await
                .unwrap();
        let options: PgConnectOptions = url.parse().unwrap();
        let folder = options.get_socket().unwrap();
        let path = Path::new(folder).join(format!(".s.PGSQL.{}", options.get_port()));
        let mut stream = UnixStream::connect(path).unwrap();

        let mut startup = 196_608_i32.to_be_bytes().to_vec();
        let user = options.get_username();
        startup.extend(format!("user\0{user}\0replication\0true\0\0").bytes());
        stream.write_all(&framed(&startup)).unwrap();
        until_message(&mut stream, b'Z');

        let mut query = vec![b'Q'];
        let start = format!("START_REPLICATION {with} PHYSICAL {lsn}\0");
        query.extend(framed(start.as_bytes()));
        stream.write_all(&query).unwrap();
        until_message(&mut stream, b'W');

        // Hot standby feedback: time, then xmin and catalog_xmin, each with its epoch.
        let xid: u64 = xid.parse().unwrap();
        let (epoch, xmin) = ((xid >> 32) as u32, (xid & 0xffff_ffff) as u32);
        let mut feedback = vec![b'h'];
        feedback.extend(0_i64.to_be_bytes());
        for word in [xmin, epoch, 0, 0] {
            feedback.extend(word.to_be_bytes());
        }
        let mut data = vec![b'd'];
        data.extend(framed(&feedback));
        stream.write_all(&data).unwrap();
        Self { _stream: stream }
    }
}

/// Puts its length before a message.
fn framed(body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len() + 4).unwrap();
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend(body);
    framed
}

/// Reads messages up to one of a type.
fn until_message(stream: &mut UnixStream, wanted: u8) {
    loop {
        let mut head = [0; 5];
        stream.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes(head[1..].try_into().unwrap());
        let mut body = vec![0; length as usize - 4];
        stream.read_exact(&mut body).unwrap();
        let text = String::from_utf8_lossy(&body);
        assert_ne!(head[0], b'E', "{text}");
        if head[0] == wanted {
            return;
        }
    }
}
