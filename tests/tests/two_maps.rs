//! Two routers with different maps, started at once on empty instances: each wants every table
//! somewhere else, and no table is made twice. `PGBRAID_TWO_MAPS_ROUNDS` asks for more rounds.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
};

use pgbraid_proto::v1;
use pgbraid_tests::{
    Cluster, ClusterOptions, Router, Writer,
    rows::{self, int},
    run,
    wait::until,
};
use tokio_postgres::Client;

const INSTANCES: u16 = 3;
const TABLES: u32 = 32;
const FEED: &str = "feed";
/// A feed that is there before.
const FIRST: &str = "first";

fn rounds() -> u32 {
    let wanted = std::env::var("PGBRAID_TWO_MAPS_ROUNDS").ok();
    wanted.and_then(|rounds| rounds.parse().ok()).unwrap_or(3)
}

/// Instances with a database each that nothing has been done to.
struct Round<'a> {
    cluster: &'a Cluster,
    database: String,
}

impl<'a> Round<'a> {
    async fn make(cluster: &'a Cluster, number: u32) -> Self {
        let database = format!("round_{number}");
        for instance in 0..usize::from(INSTANCES) {
            let client = cluster.superuser(instance).await;
            let create = format!("create database {database} owner pgbraid");
            let made = client.batch_execute(&create).await;
            made.expect("a database");
        }
        Self { cluster, database }
    }

    /// So that a hundred rounds do not fill the disk, nor a hundred routers the connections.
    async fn drop(self) {
        for instance in 0..usize::from(INSTANCES) {
            let client = self.cluster.superuser(instance).await;
            let drop = format!("drop database {} with (force)", self.database);
            client.batch_execute(&drop).await.expect("it is dropped");
        }
    }

    async fn sql(&self, instance: usize) -> Client {
        let postgres = &self.cluster.postgres;
        let client = postgres.connect(instance, false, &self.database).await;
        client.expect("the instance answers")
    }

    /// Settings of a router. Its map wants every table in another place than with another `shift`;
    /// without one it does not have the feed.
    fn settings(&self, name: &str, shift: Option<u32>) -> PathBuf {
        let mut feeds = vec![(FIRST.to_owned(), 1)];
        if shift.is_some() {
            feeds.push((FEED.into(), TABLES));
        }
        let database = format!("dbname = {:?}\nport =", self.database);
        let map = self.cluster.map(INSTANCES, &feeds);
        let mut map = map.replace("port =", &database);
        if let Some(shift) = shift {
            let _ = writeln!(map, "[feeds.{FEED}.pins]");
            let instances = u32::from(INSTANCES);
            for instance in 0..instances {
                let tables = (0..TABLES).filter(|table| (table + shift) % instances == instance);
                let _ = writeln!(map, "db{instance} = {:?}", tables.collect::<Vec<_>>());
            }
        }
        let name = format!("{}-{name}", self.database);
        let (map_name, path) = (format!("{name}-map.toml"), format!("{name}.toml"));
        std::fs::write(self.cluster.path(&map_name), map).expect("files can be written");
        let config = std::fs::read_to_string(self.cluster.config()).expect("the settings");
        let config = config.replace("\"shardmap.toml\"", &format!("{map_name:?}"));
        let path = self.cluster.path(&path);
        std::fs::write(&path, config).expect("files can be written");
        path
    }

    /// Where each table is, from all instances: owned once, and made there only.
    async fn owners(&self) -> BTreeMap<i32, usize> {
        let mut owners = BTreeMap::new();
        for instance in 0..usize::from(INSTANCES) {
            let sql = self.sql(instance).await;
            let numbers = async |ask: &str| -> BTreeSet<i32> {
                let rows = sql.query(ask, &[&FEED]).await.expect("it can be read");
                rows.iter().map(|row| row.get(0)).collect()
            };
            let owned = "select tbl from pgbraid.ownership where feed = $1 and state = 'owned'";
            let made = "select substring(inhrelid::regclass::text from '[0-9]+$')::int \
                        from pg_inherits where inhparent = $1::text::regclass";
            let owned = numbers(owned).await;
            assert_eq!(owned, numbers(made).await, "owned and made on db{instance}");
            for table in owned {
                let other = owners.insert(table, instance);
                assert_eq!(other, None, "tbl{table} is owned twice");
            }
        }
        let ask = "select tbl, instance from pgbraid.claim where feed = $1";
        let claims = self.sql(0).await.query(ask, &[&FEED]).await;
        for claim in claims.expect("the home has the claims") {
            let table: i32 = claim.get(0);
            let owner = owners.get(&table).map(|owner| format!("db{owner}"));
            assert_eq!(owner, Some(claim.get(1)), "tbl{table}");
        }
        owners
    }
}

/// Waits until the router knows an owner of every table.
async fn settled(router: &Router) {
    let admin = rows::admin(router).await;
    until("all tables to be owned", || async {
        let status = admin.clone().get_status(v1::GetStatusRequest {}).await;
        let status = status.expect("the router answers").into_inner();
        let state = status.feeds.into_iter().find(|state| state.name == FEED);
        let state = state.expect("the feed is there");
        assert_eq!(state.conflicts, [] as [&str; 0]);
        (state.unowned == 0).then_some(())
    })
    .await;
}

fn migrate(config: &Path) -> Result<(), String> {
    let migrated = run(&["migrate", "--config", config.to_str().expect("UTF-8")]);
    match migrated.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&migrated.stderr).into_owned()),
    }
}

/// All at once.
async fn at_once<T: Send + 'static>(configs: &[PathBuf], what: fn(&Path) -> T) -> Vec<T> {
    let starts: Vec<_> = (configs.iter().cloned())
        .map(|config| tokio::task::spawn_blocking(move || what(&config)))
        .collect();
    let mut done = Vec::new();
    for start in starts {
        done.push(start.await.expect("it runs"));
    }
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn routers_with_different_maps_make_no_table_twice() {
    let cluster = Cluster::start_bare(&ClusterOptions {
        instances: INSTANCES,
        schema: [FIRST, FEED]
            .map(|feed| {
                format!("create table {feed} (id int8 primary key, a int) partition by hash (id);")
            })
            .concat(),
        ..Default::default()
    })
    .await;
    for number in 0..rounds() {
        let round = Round::make(&cluster, number).await;
        let configs = [round.settings("a", Some(0)), round.settings("b", Some(1))];
        // In turns: the tables are made by the routers, by them and a `migrate`, and by two of
        // these at once on databases that have nothing.
        let late = match number % 3 {
            2 => {
                let migrated = at_once(&configs, migrate).await;
                assert!(migrated.iter().any(Result::is_ok), "{migrated:?}");
                &configs[..]
            }
            other => {
                migrate(&round.settings("first", None)).expect("nothing is in the way");
                &configs[..other as usize]
            }
        };
        let (routers, migrated) =
            tokio::join!(at_once(&configs, Router::start), at_once(late, migrate));
        for migrated in migrated {
            migrated.expect("nothing is in the way");
        }
        for router in &routers {
            settled(router).await;
        }
        let owners = round.owners().await;
        assert_eq!(owners.len(), TABLES as usize, "round {number}");
        for router in &routers {
            check(router, &owners).await;
        }
        let mut stored = 0;
        for instance in 0..usize::from(INSTANCES) {
            let count = format!("select count(*) from {FEED}");
            let row = round.sql(instance).await.query_one(&count, &[]).await;
            stored += row.expect("it counts").get::<_, i64>(0);
        }
        assert_eq!(stored, 1000, "round {number}");
        drop(routers);
        round.drop().await;
    }
}

/// It writes every table where it is, and says so.
async fn check(router: &Router, owners: &BTreeMap<i32, usize>) {
    let mut writer = Writer::open(router).await;
    let keys = (0..1000).map(|key| (int(key), vec![int(key)]));
    writer.write(rows::rows(FEED, &["a"], keys)).await;
    let mut admin = rows::admin(router).await;
    for key in 0..20 {
        let request = v1::LocateRequest {
            feed: FEED.into(),
            key: key.to_string(),
        };
        let place = admin.locate(request).await.expect("the key is taken");
        let place = place.into_inner();
        let table = place.table.trim_start_matches("tbl");
        let table: i32 = table.parse().expect("a number");
        assert_eq!(place.instance, format!("db{}", owners[&table]));
    }
}
