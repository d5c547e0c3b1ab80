//! A PgBouncer of the test's own.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
};

use nix::unistd::{Uid, User};
use sqlx::{ConnectOptions, postgres::PgConnectOptions};
use tempfile::TempDir;

use crate::queue_rig::until_true;

/// A running PgBouncer on a socket of its own; killed when dropped.
pub(crate) struct Pooler {
    folder: TempDir,
    child: Child,
}

impl Pooler {
    /// Starts one before the server of `url`, with so many servers for each database, and waits until
    /// it takes connections.
    pub(crate) async fn start(url: &str, mode: &str, n_servers: u32) -> Self {
        let server: PgConnectOptions = url.parse().unwrap();
        let folder = TempDir::new().unwrap();
        let place = folder.path().display();
        let configuration = format!(
            "[databases]\n* = host={host} port={port} user={user}\n\
             [pgbouncer]\nlisten_addr =\nlisten_port = 5432\nunix_socket_dir = {place}\n\
             auth_type = any\npool_mode = {mode}\ndefault_pool_size = {n_servers}\n\
             logfile = {place}/log\n\
             ignore_startup_parameters = extra_float_digits, options\n",
            host = server.get_socket().unwrap().display(),
            port = server.get_port(),
            user = server.get_username(),
        );
        let file = folder.path().join("pgbouncer.ini");
        fs::write(&file, configuration).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let installed = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"];
        let Some(program) = installed.iter().find(|path| Path::new(path).is_file()) else {
            panic!("PgBouncer is missing: sudo apt-get install pgbouncer");
        };
        let mut command = Command::new(program);
        command.arg("--quiet").arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        if Uid::effective().is_root() {
            // It refuses root, as Postgres does.
            let user = User::from_name("postgres").unwrap().unwrap();
            let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
            chown(folder.path(), Some(uid), Some(gid)).unwrap();
            command.uid(uid).gid(gid);
        }
        let pooler = Self {
            child: command.stderr(Stdio::null()).spawn().unwrap(),
            folder,
        };
        let socket = pooler.folder.path().join(".s.PGSQL.5432");
        until_true("PgBouncer is ready", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        })
        .await;
        pooler
    }

    /// Returns the URL of the same database through the pooler.
    pub(crate) fn url(&self, direct: &str) -> String {
        let options: PgConnectOptions = direct.parse().unwrap();
        let through = options.socket(self.folder.path()).port(5432);
        through.to_url_lossy().to_string()
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
