//! A standby of an instance, for failover.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tokio_postgres::{Client, NoTls};

use crate::{Cluster, wait::until};

/// A hot standby that follows one instance. Killed when dropped: keep it for less long than the
/// cluster, in whose folder it lives.
pub struct Standby {
    child: Child,
    data: PathBuf,
    port: u16,
    password: String,
}

impl Standby {
    /// Makes one with `pg_basebackup`, and waits until it answers.
    ///
    /// # Panics
    /// If it can't be made.
    pub async fn of(cluster: &Cluster, instance: usize) -> Self {
        let primary = &cluster.postgres.instances()[instance];
        let owner = fs::metadata(primary.data_dir()).expect("the data folder is there");
        let folder = cluster.postgres.dir().join(format!("standby{instance}"));
        fs::create_dir(&folder).expect("a folder can be made");
        std::os::unix::fs::chown(&folder, Some(owner.uid()), Some(owner.gid()))
            .expect("a folder can be given away");
        let settings = primary.data_dir().with_file_name("pgbraid.conf");
        fs::copy(settings, folder.join("pgbraid.conf")).expect("the settings are there");
        let data = folder.join("data");
        let password = cluster.postgres.password().to_owned();
        let backup = run_as(
            &owner,
            cluster.postgres.binaries().program("pg_basebackup"),
            &folder,
        )
        .args([
            "-h",
            "127.0.0.1",
            "-U",
            "pgbraid",
            "-X",
            "stream",
            "-R",
            "-c",
            "fast",
        ])
        .args(["-p", &primary.port().to_string(), "-D"])
        .arg(&data)
        .env("PGPASSWORD", &password)
        .output()
        .expect("pg_basebackup runs");
        assert!(
            backup.status.success(),
            "{}",
            String::from_utf8_lossy(&backup.stderr)
        );
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let port = free.expect("a free port").port();
        let child = run_as(
            &owner,
            cluster.postgres.binaries().program("postgres"),
            &folder,
        )
        .args(["-p", &port.to_string(), "-D"])
        .arg(&data)
        .stdout(Stdio::null())
        .stderr(fs::File::create(folder.join("log")).expect("a log can be made"))
        .spawn()
        .expect("postgres starts");
        let standby = Self {
            child,
            data,
            port,
            password,
        };
        until("the standby to answer", || async {
            standby.try_sql().await
        })
        .await;
        standby
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    async fn try_sql(&self) -> Option<Client> {
        let (client, connection) = tokio_postgres::Config::new()
            .host("127.0.0.1")
            .port(self.port)
            .user("pgbraid")
            .password(&self.password)
            .dbname("pgbraid")
            .connect(NoTls)
            .await
            .ok()?;
        tokio::spawn(connection);
        Some(client)
    }

    /// A connection, as the role of the router.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn sql(&self) -> Client {
        self.try_sql().await.expect("the standby answers")
    }

    /// Lets it hear nothing more from its primary: it falls behind.
    ///
    /// # Panics
    /// If its settings can't be written.
    pub fn cut_off(&self) {
        let mut settings = fs::OpenOptions::new()
            .append(true)
            .open(self.data.join("postgresql.auto.conf"))
            .expect("pg_basebackup has written it");
        writeln!(settings, "primary_conninfo = ''").expect("settings can be written");
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).expect("it lives");
    }

    /// Makes it a primary. Nobody asks whether there is another one.
    ///
    /// # Panics
    /// If it is not one in the end.
    pub async fn promote(&self, cluster: &Cluster, instance: usize) {
        let owner = cluster.postgres.instances()[instance].data_dir().to_owned();
        let owner = fs::metadata(owner).expect("the data folder is there");
        let data = cluster
            .postgres
            .dir()
            .join(format!("standby{instance}/data"));
        let promoted = run_as(&owner, cluster.postgres.binaries().program("pg_ctl"), &data)
            .args(["promote", "-w", "-t", "30", "-D"])
            .arg(&data)
            .output()
            .expect("pg_ctl runs");
        assert!(
            promoted.status.success(),
            "{}",
            String::from_utf8_lossy(&promoted.stderr)
        );
    }
}

fn run_as(owner: &fs::Metadata, program: PathBuf, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .uid(owner.uid())
        .gid(owner.gid())
        .current_dir(folder)
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    command
}

impl Drop for Standby {
    fn drop(&mut self) {
        // SIGQUIT: at once, its children with it.
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGQUIT);
        let _ = self.child.wait();
    }
}
