//! A fleet of PostgreSQL instances with its two files.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use pgbraid_devcluster::TempCluster;
use pgbraid_proto::v1;
use tokio_postgres::Client;

use crate::{Router, process::run};

/// What a test's fleet looks like.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Instances.
    pub instances: u16,
    /// The user's DDL.
    pub schema: String,
    /// Feeds and their number of tables.
    pub feeds: Vec<(String, u32)>,
    /// More lines for pgbraid.toml.
    pub config: String,
    /// More lines for its section on moves.
    pub moves: String,
    /// Settings of PostgreSQL.
    pub settings: Vec<(&'static str, &'static str)>,
}

impl Default for ClusterOptions {
    /// The table of the articles, as feed `feed`.
    fn default() -> Self {
        Self {
            instances: 2,
            schema:
                "create table feed (id int8 primary key, c1 int, c2 int, c3 int, c4 int, c5 int, \
                     c6 int, c7 int, c8 int, c9 int, c10 int, c11 int, c12 int) \
                     partition by hash (id);"
                    .into(),
            feeds: vec![("feed".into(), 16)],
            config: String::new(),
            moves: String::new(),
            settings: Vec::new(),
        }
    }
}

/// A migrated fleet.
pub struct Cluster {
    /// The instances. Dropped last: it deletes the folder.
    pub postgres: TempCluster,
    folder: tempfile::TempDir,
    instances: u16,
}

impl Cluster {
    /// Starts and migrates a fleet.
    ///
    /// # Panics
    /// If anything of it fails.
    pub async fn start(options: ClusterOptions) -> Self {
        let cluster = Self::start_bare(&options).await;
        let migrated = run(&[
            "migrate",
            "--config",
            cluster.config().to_str().expect("UTF-8"),
        ]);
        assert!(
            migrated.status.success(),
            "migrate failed:\n{}",
            String::from_utf8_lossy(&migrated.stderr)
        );
        cluster
    }

    /// Starts a fleet, without `migrate`.
    ///
    /// # Panics
    /// If anything of it fails.
    pub async fn start_bare(options: &ClusterOptions) -> Self {
        let mut settings = vec![("synchronous_commit", "on")];
        settings.extend_from_slice(&options.settings);
        let postgres = TempCluster::start(options.instances, false, &settings)
            .await
            .expect("PostgreSQL starts");
        let folder = tempfile::Builder::new()
            .prefix("pgbraid-test-")
            .tempdir()
            .expect("a temporary folder");
        let cluster = Self {
            postgres,
            folder,
            instances: options.instances,
        };
        std::fs::write(cluster.path("schema.sql"), &options.schema).expect("files can be written");
        let config = format!(
            "shardmap = \"shardmap.toml\"\nschema = [\"schema.sql\"]\n\n\
             [postgres]\npassword_file = {:?}\n\n{}\n\n\
             [moves]\nuser = \"postgres\"\npassword_file = {:?}\n{}\n",
            cluster.postgres.password_file(),
            // Its first lines may be of the section before.
            options.config,
            cluster.postgres.superuser_password_file(),
            options.moves,
        );
        std::fs::write(cluster.config(), config).expect("files can be written");
        cluster.write_map(&cluster.map(options.instances, &options.feeds));
        cluster
    }

    /// A file in the folder of the two files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder of the two files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// pgbraid.toml.
    pub fn config(&self) -> PathBuf {
        self.path("pgbraid.toml")
    }

    /// Number of instances.
    pub fn instances(&self) -> u16 {
        self.instances
    }

    /// The text of a map of the first instances.
    pub fn map(&self, instances: u16, feeds: &[(String, u32)]) -> String {
        let mut map = String::new();
        for instance in self.postgres.instances().iter().take(instances.into()) {
            let _ = writeln!(
                map,
                "[instances.{}]\nhost = \"127.0.0.1\"\nport = {}\n",
                instance.name(),
                instance.port()
            );
        }
        for (feed, tables) in feeds {
            let _ = writeln!(map, "[feeds.{feed}]\ntables = {tables}\n");
        }
        map
    }

    /// Writes shardmap.toml as editors do: a new file takes the old one's name.
    ///
    /// # Panics
    /// If the file can't be written.
    pub fn write_map(&self, map: &str) {
        let new = self.path("shardmap.toml.new");
        std::fs::write(&new, map).expect("files can be written");
        std::fs::rename(new, self.path("shardmap.toml")).expect("files can be renamed");
    }

    /// Starts a router.
    pub fn router(&self) -> Router {
        Router::start(&self.config())
    }

    /// A connection to an instance, as the role of the router.
    ///
    /// # Panics
    /// If the instance can't be reached.
    pub async fn sql(&self, instance: usize) -> Client {
        self.postgres
            .connect(instance, false, "pgbraid")
            .await
            .expect("the instance answers")
    }

    /// One number from each instance, added up.
    ///
    /// # Panics
    /// If an instance can't be asked.
    pub async fn sum(&self, sql: &str) -> i64 {
        let mut sum = 0;
        for instance in 0..self.instances.into() {
            let row = self.sql(instance).await.query_one(sql, &[]).await;
            sum += row.expect("the query works").get::<_, i64>(0);
        }
        sum
    }

    /// Puts rules through a router: name, expression, channel.
    ///
    /// # Panics
    /// If a rule is refused.
    pub async fn put_rules(&self, router: &Router, feed: &str, rules: &[(&str, &str, &str)]) {
        let rules = rules
            .iter()
            .map(|(name, expression, channel)| v1::RulePut {
                rule: Some(v1::Rule {
                    name: (*name).to_owned(),
                    feed: feed.to_owned(),
                    expression: (*expression).to_owned(),
                    channel: (*channel).to_owned(),
                    reason: format!("because of {name}"),
                    ..Default::default()
                }),
                expected_version: None,
            })
            .collect();
        let answer = crate::rows::admin(router)
            .await
            .put_rules(v1::PutRulesRequest {
                rules,
                prune: false,
                dry_run: false,
            })
            .await
            .expect("the rules are taken")
            .into_inner();
        assert!(answer.pending.is_empty(), "pending: {:?}", answer.pending);
    }
}
