//! `up`: from whatever is in the folder to a running cluster.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::account::Account;
use crate::binaries::PgBinaries;
use crate::cluster::{ClusterSpec, DevCluster, instances};
use crate::error::{DevClusterError, OrIo, Result};
use crate::instance::DevInstance;
use crate::launch::{launch, wait_until_ready};
use crate::lock::DirLock;
use crate::marker::Marker;
use crate::paths::Paths;
use crate::postmaster::StopMode;
use crate::secrets::Secrets;
use crate::{initdb, ports, roles, settings};

/// Ports to try for one instance, when others keep taking them between our look and the start.
const PORT_TRIES: usize = 8;

/// For the restart of an instance whose settings changed.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// What the work on one instance needs to know of the whole.
struct Work {
    paths: Paths,
    binaries: PgBinaries,
    account: Account,
    secrets: Secrets,
    /// Shared, because an instance may have to change its port.
    marker: Mutex<Marker>,
    /// How many instances are worked on at once.
    slots: Semaphore,
}

pub(crate) async fn up(spec: &ClusterSpec) -> Result<DevCluster> {
    spec.check()?;
    let binaries = PgBinaries::find()?;
    let (paths, made_dir) = prepare_folder(&spec.dir)?;
    let _lock = DirLock::take(&paths).await?;
    let account = Account::for_cluster(&paths)?;
    let marker = prepare_marker(&paths, spec, made_dir)?;
    let secrets = Secrets::load_or_make(&paths)?;

    let parallel = thread::available_parallelism()
        .map_or(2, usize::from)
        .clamp(2, 4);
    let found = instances(&paths, &marker, &secrets);
    let slots = Semaphore::new(parallel);
    let marker = Mutex::new(marker);
    let work = Arc::new(Work {
        paths,
        binaries,
        account,
        secrets,
        marker,
        slots,
    });

    let mut tasks = JoinSet::new();
    for instance in found {
        let work = Arc::clone(&work);
        tasks.spawn(async move { work.bring_up(instance).await });
    }
    // The first error ends the others: what they had begun, the next `up` finishes.
    while let Some(done) = tasks.join_next().await {
        done.map_err(|e| DevClusterError::Task(e.to_string()))??;
    }
    let marker = work.marker().clone();
    Ok(DevCluster::new(
        work.paths.clone(),
        work.binaries.clone(),
        work.account.clone(),
        work.secrets.clone(),
        &marker,
    ))
}

/// Makes the folder and its missing parents, or checks that it may be used. Also says whether it
/// was made.
fn prepare_folder(dir: &Path) -> Result<(Paths, bool)> {
    let given = std::path::absolute(dir).or_io("look at", dir)?;
    let existing = given
        .ancestors()
        .find(|a| a.exists())
        .unwrap_or(Path::new("/"));
    let base = existing.canonicalize().or_io("look at", existing)?;
    let missing = given.strip_prefix(existing).unwrap_or(Path::new(""));
    if missing.as_os_str().is_empty() {
        let paths = Paths::new(base);
        refuse_foreign(&paths)?;
        let account = Account::for_cluster(&paths)?;
        account.check_reachable(paths.dir())?;
        account.let_pass(paths.dir())?;
        return Ok((paths, false));
    }
    let paths = Paths::new(base.join(missing));
    let account = Account::for_cluster(&paths)?;
    let mut folder = base;
    for part in missing {
        folder.push(part);
        account.check_reachable(&folder)?;
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            // Another `up` makes the same folder right now.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
            made => made.or_io("make", &folder)?,
        }
        account.let_pass(&folder)?;
    }
    Ok((paths, true))
}

/// A folder that is neither ours nor empty is left alone.
fn refuse_foreign(paths: &Paths) -> Result<()> {
    if Marker::load(paths)?.is_some() {
        return Ok(());
    }
    let dir = paths.dir();
    for entry in fs::read_dir(dir).or_io("read", dir)? {
        let path = entry.or_io("read", dir)?.path();
        // What an `up` leaves that was killed before it wrote its marker.
        if path != paths.lock() && path != paths.marker_draft() {
            return Err(DevClusterError::NotOurs {
                dir: dir.to_owned(),
            });
        }
    }
    Ok(())
}

/// Brings `cluster.json` up to what is asked for, with a port for every instance.
fn prepare_marker(paths: &Paths, spec: &ClusterSpec, made_dir: bool) -> Result<Marker> {
    let old = Marker::load(paths)?;
    let mut marker = old.clone().unwrap_or_else(|| Marker::new(made_dir));
    let (have, want) = (marker.ports.len(), usize::from(spec.instances));
    if have > want {
        return Err(DevClusterError::Invalid(format!(
            "{} has {have} instances, more than the {want} asked for; ask for {have}, or remove \
             it first",
            paths.dir().display()
        )));
    }
    marker.durable = spec.durable;
    marker.settings.clone_from(&spec.settings);
    while marker.ports.len() < want {
        let port = ports::pick(&marker.ports)?;
        marker.ports.push(port);
    }
    if old.as_ref() != Some(&marker) {
        marker.save(paths)?;
    }
    Ok(marker)
}

impl Work {
    fn marker(&self) -> std::sync::MutexGuard<'_, Marker> {
        self.marker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn bring_up(&self, mut instance: DevInstance) -> Result<()> {
        let slot = self.slots.acquire().await;
        let _slot = slot.map_err(|e| DevClusterError::Task(e.to_string()))?;
        let durable = self.marker().durable;
        let superuser = &self.secrets.superuser;
        initdb::ensure(&self.binaries, &self.account, &instance, superuser, durable).await?;
        if !self.runs_already(&instance).await? {
            self.start(&mut instance).await?;
        }
        roles::ensure(&instance).await
    }

    /// Whether it runs with the settings it should have; one with others is stopped.
    async fn runs_already(&self, instance: &DevInstance) -> Result<bool> {
        let postmaster = instance.postmaster();
        let Some(pid) = postmaster.pid() else {
            return Ok(false);
        };
        let written = fs::read_to_string(instance.paths().settings()).unwrap_or_default();
        if written == self.settings_of(instance) {
            blocking(move || postmaster.thaw()).await?;
            return wait_until_ready(instance, pid, 0).await.map(|()| true);
        }
        tracing::info!("{}: settings changed, restarting", instance.name());
        blocking(move || postmaster.stop(StopMode::Fast, STOP_DEADLINE)).await?;
        Ok(false)
    }

    async fn start(&self, instance: &mut DevInstance) -> Result<()> {
        for _ in 1..PORT_TRIES {
            if ports::is_free(instance.port()) {
                match self.write_and_launch(instance).await {
                    Err(DevClusterError::PortTaken { .. }) => {}
                    done => return done,
                }
            }
            let old = instance.port();
            instance.set_port(self.other_port(instance)?);
            tracing::info!(
                "{}: port {old} is taken, now {}",
                instance.name(),
                instance.port()
            );
        }
        self.write_and_launch(instance).await
    }

    fn other_port(&self, instance: &DevInstance) -> Result<u16> {
        let mut marker = self.marker();
        let port = ports::pick(&marker.ports)?;
        marker.ports[usize::from(instance.index())] = port;
        marker.save(&self.paths)?;
        Ok(port)
    }

    async fn write_and_launch(&self, instance: &DevInstance) -> Result<()> {
        let path = instance.paths().settings();
        fs::write(&path, self.settings_of(instance)).or_io("write", &path)?;
        self.account.give(&path)?;
        launch(&self.binaries, &self.account, instance).await
    }

    fn settings_of(&self, instance: &DevInstance) -> String {
        let marker = self.marker();
        settings::text(
            instance.name(),
            instance.port(),
            marker.durable,
            &marker.settings,
        )
    }
}

/// Runs something that blocks where it may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| DevClusterError::Task(e.to_string()))?
}
