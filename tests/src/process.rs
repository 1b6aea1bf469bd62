//! The real binary.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// `pgbraid`, as `./run test` has built it: beside the test's own binary, or as
/// `PGBRAID_TEST_BINARY` says.
///
/// # Panics
/// If it is not there.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("PGBRAID_TEST_BINARY") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a test knows its own path");
    let path = test
        .ancestors()
        .map(|folder| folder.join("pgbraid"))
        .find(|path| path.is_file());
    path.expect("the binary is not built: run `cargo build -p pgbraid`, or `./run test`")
}

/// Runs the binary to its end.
///
/// # Panics
/// If it can't be started.
pub fn run(arguments: &[&str]) -> Output {
    Command::new(binary())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("pgbraid starts")
}

/// A running `pgbraid serve`. Killed when dropped.
pub struct Router {
    child: Child,
    /// Address of gRPC.
    pub grpc: String,
    /// Address of HTTP.
    pub http: String,
    log: Arc<Mutex<String>>,
}

impl Router {
    /// Starts a router on free ports and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready; the message holds its log.
    pub fn start(config: &Path) -> Self {
        let mut child = Command::new(binary())
            .args([
                "serve",
                "--grpc-listen",
                "127.0.0.1:0",
                "--http-listen",
                "127.0.0.1:0",
            ])
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("pgbraid starts");
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().expect("stderr is piped");
        let (send, ready) = std::sync::mpsc::channel();
        let kept = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(rest) = line.strip_prefix("ready: ") {
                    let _ = send.send(rest.to_owned());
                }
                let mut kept = kept.lock().expect("no panic under this lock");
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let line = match ready.recv_timeout(Duration::from_secs(60)) {
            Ok(line) => line,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                panic!(
                    "the router is not ready ({error}):\n{}",
                    log.lock().expect("log")
                );
            }
        };
        let part = |name: &str| {
            line.split(", ")
                .find_map(|part| part.strip_prefix(name))
                .unwrap_or_else(|| panic!("no {name} in {line:?}"))
                .trim()
                .to_owned()
        };
        Self {
            child,
            grpc: part("grpc"),
            http: part("http"),
            log,
        }
    }

    /// Process id.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("log").clone()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If the process is not there.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("the router is there");
    }

    /// SIGTERM, and waits for the end; returns the exit code.
    ///
    /// # Panics
    /// If it does not end within 60 seconds.
    pub fn stop(mut self) -> i32 {
        self.signal(Signal::SIGTERM);
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("waiting works") {
                return status.code().unwrap_or(-1);
            }
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "the router does not stop:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        std::fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .ok()
            .and_then(|status| {
                let line = status
                    .lines()
                    .find_map(|line| line.strip_prefix("VmRSS:"))?;
                line.trim()
                    .trim_end_matches("kB")
                    .trim()
                    .parse::<u64>()
                    .ok()
            })
            .map_or(0, |kib| kib * 1024)
    }

    /// GET of a path over HTTP: status and body.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn get(&self, path: &str) -> (u16, String) {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(&self.http).expect("HTTP answers");
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a timeout can be set");
        write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\n\r\n").expect("HTTP takes requests");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("HTTP sends text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("HTTP has a head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        (status.expect("HTTP has a status"), body.to_owned())
    }

    /// The sum of a metric over all label sets that hold every given piece of text.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (_, text) = self.get("/metrics");
        text.lines()
            .filter(|line| line.starts_with(name))
            .filter(|line| matches!(line.as_bytes().get(name.len()), Some(b'{' | b' ')))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the router ---\n{}", self.log());
        }
    }
}
