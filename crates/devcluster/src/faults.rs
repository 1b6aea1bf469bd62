//! What tests do to instances. Everything returns when it has really come about.

use std::time::Duration;

use crate::cluster::DevCluster;
use crate::error::Result;
use crate::launch::launch;
use crate::postmaster::{Postmaster, StopMode};
use crate::up::blocking;

const STOP_DEADLINE: Duration = Duration::from_secs(30);

impl DevCluster {
    /// Stops instance `index` and waits until its last process is gone; thaws it first. Not
    /// running is no error.
    ///
    /// # Errors
    /// No such instance, or it is still there after 30 seconds.
    pub async fn stop(&self, index: usize, mode: StopMode) -> Result<()> {
        self.at(index, move |postmaster| {
            postmaster.stop(mode, STOP_DEADLINE)
        })
        .await
    }

    /// Starts instance `index` on its port and waits until it answers, for at most 60 seconds. If
    /// it runs already, nothing happens.
    ///
    /// # Errors
    /// No such instance, its port is taken, or it does not come up (with the end of its log).
    pub async fn start(&self, index: usize) -> Result<()> {
        let instance = self.instance(index)?;
        if instance.pid().is_some() {
            return Ok(());
        }
        launch(self.binaries(), self.account(), instance).await
    }

    /// [`stop`](Self::stop) in fast mode, then [`start`](Self::start).
    ///
    /// # Errors
    /// As those two.
    pub async fn restart(&self, index: usize) -> Result<()> {
        self.stop(index, StopMode::Fast).await?;
        self.start(index).await
    }

    /// SIGKILL for the postmaster of instance `index` and all its children, frozen or not; returns
    /// when all are gone.
    ///
    /// # Errors
    /// No such instance, it does not run, or a process is still there after 10 seconds.
    pub async fn kill9(&self, index: usize) -> Result<()> {
        self.at(index, |postmaster| {
            if postmaster.pid().is_none() {
                return Err(postmaster.not_running());
            }
            postmaster.kill9()
        })
        .await
    }

    /// SIGSTOP for the postmaster of instance `index` and all its children; returns when all stand
    /// still. The port still accepts connections, and nobody answers.
    ///
    /// # Errors
    /// No such instance, or it does not run.
    pub async fn freeze(&self, index: usize) -> Result<()> {
        self.at(index, |postmaster| postmaster.freeze()).await
    }

    /// Ends a [`freeze`](Self::freeze). Not frozen is no error.
    ///
    /// # Errors
    /// No such instance, or a process stays stopped.
    pub async fn thaw(&self, index: usize) -> Result<()> {
        self.at(index, |postmaster| postmaster.thaw()).await
    }

    async fn at(
        &self,
        index: usize,
        work: impl FnOnce(&Postmaster) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let postmaster = self.instance(index)?.postmaster();
        blocking(move || work(&postmaster)).await
    }
}
