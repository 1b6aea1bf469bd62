//! Everything that is measured, ready to run.

use std::time::Duration;

use anyhow::Result;
use pgbraid_devcluster::DevCluster;

use crate::{
    asyncpg, call,
    case::{Case, Measure},
    limit::{Choice, Limit, Writers},
    pgbench::Workload,
    router::{Load, Router},
};

/// Connected, planned and warm where that is ours to do.
pub struct Contestants {
    single_sql: Workload,
    batch_sql: Workload,
    limit: Writers,
    direct: Writers,
    pub router: Router,
    /// Keys 0 to `keys - 1` are stored.
    keys: u64,
}

impl Contestants {
    pub async fn prepare(
        cluster: &DevCluster,
        router: Router,
        limit: &Limit,
        choice: Choice,
        keys: u64,
    ) -> Result<Self> {
        Ok(Self {
            single_sql: Workload::prepare(cluster, "single").await?,
            batch_sql: Workload::prepare(cluster, "batch").await?,
            limit: limit.prepare(cluster, choice).await?,
            direct: limit.prepare_direct(cluster).await?,
            router,
            keys,
        })
    }

    /// One measurement. `top_single` is the rate of single rows that was just measured.
    pub async fn run(
        &mut self,
        cluster: &DevCluster,
        case: Case,
        top_single: f64,
        time: Duration,
    ) -> Result<Measure> {
        let load = |load: Load| self.router.load(&load.over(self.keys), time);
        match case {
            Case::SingleSql => self.single_sql.run(cluster, 32, 1, time),
            Case::Single => load(Load::single()),
            Case::SingleHalf => load(Load::single().at(top_single / 2.0)),
            Case::Direct => self.direct.run(time).await,
            Case::Call => call::run(self.router.address(), time).await,
            Case::Unary => load(Load::unary()),
            Case::BatchSql => self.batch_sql.run(cluster, 8, 1001, time),
            Case::ColumnarRuns => load(Load::runs()),
            Case::Asyncpg => asyncpg::run(cluster, self.keys, time),
            Case::Limit => self.limit.run(time).await,
            Case::ColumnarRandom => load(Load::random()),
            Case::Rows => load(Load::rows()),
        }
    }
}
