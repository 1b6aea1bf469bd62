//! The files that `dev up` writes: pgbraid.toml, shardmap.toml, schema.sql.
//!
//! The first line of each carries a checksum of the rest. A file that is as we wrote it is written
//! anew; one that somebody changed is theirs, and only the ports in the shard map follow the
//! instances.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use pgbraid_config::{RouterConfig, ShardMap};
use pgbraid_devcluster::DevCluster;
use pgbraid_shardmap::{FeedName, hash};
use toml_edit::{DocumentMut, Value};

use super::schema::{self, Parent};
use crate::failure::{Failure, OrFail, Result};

pub const CONFIG: &str = "pgbraid.toml";
const MAP: &str = "shardmap.toml";
const SCHEMA: &str = "schema.sql";

/// The table of the demo, and of `dev up` without a schema.
pub const DEMO_SCHEMA: &str = include_str!("../../../assets/orders.sql");

/// What the user asked for.
#[derive(Default)]
pub struct Wish<'a> {
    pub schema: Option<&'a Path>,
    pub feed: Option<&'a str>,
    pub tables: Option<u32>,
    /// The feed tells of its changes.
    pub changes: bool,
    pub grpc_port: Option<u16>,
    pub http_port: Option<u16>,
}

/// What an earlier `dev up` left, as far as it can be read.
#[derive(Default)]
pub struct Existing {
    pub instances: Option<u16>,
    schema: Option<String>,
    feed: Option<(FeedName, u32)>,
    changes: bool,
    ports: Option<(u16, u16)>,
}

impl Existing {
    pub fn look(dir: &Path) -> Self {
        let cluster = DevCluster::attach(dir).ok();
        let config = RouterConfig::load(dir.join(CONFIG)).ok();
        let map = ShardMap::load(dir.join(MAP)).ok();
        let feed = map.and_then(|map| map.feeds.into_iter().next());
        let changes = feed.as_ref().is_some_and(|(_, feed)| feed.changes);
        let schema = fs::read_to_string(dir.join(SCHEMA)).ok();
        Self {
            instances: cluster.and_then(|c| u16::try_from(c.instances().len()).ok()),
            schema: schema.map(|text| unmarked(&text).to_owned()),
            feed: feed.map(|(name, feed)| (name, feed.tables)),
            changes,
            ports: config.map(|c| (c.grpc.listen.port(), c.http.listen.port())),
        }
    }
}

/// What the files shall say.
pub struct Plan {
    pub feed: FeedName,
    tables: u32,
    changes: bool,
    /// The parent, where it is not public.<feed>.
    parent: Option<Parent>,
    schema: String,
    grpc_port: u16,
    http_port: u16,
}

impl Plan {
    pub fn make(wish: &Wish<'_>, existing: &Existing) -> Result<Self> {
        let schema = match (wish.schema, &existing.schema) {
            (Some(path), _) => fs::read_to_string(path)
                .or_fail(|| format!("cannot read the schema {}", path.display()))?,
            (None, Some(schema)) => schema.clone(),
            (None, None) => DEMO_SCHEMA.to_owned(),
        };
        let parent = schema::parent(&schema).ok_or_else(|| {
            Failure::new("the schema has no `create table`").hint(
                "it must make the feed's parent: create table orders (id int8 primary key, ...) \
                 partition by hash (id);",
            )
        })?;
        let same_schema = existing.schema.as_ref() == Some(&schema);
        let old = existing.feed.as_ref().filter(|_| same_schema);
        let feed = match (wish.feed, old) {
            (Some(name), _) => FeedName::parse(name)?,
            (None, Some((name, _))) => name.clone(),
            (None, None) => FeedName::parse(&parent.name)
                .map_err(|error| Failure::from(error).hint("name the feed with --feed"))?,
        };
        let tables = existing.feed.as_ref().filter(|(name, _)| *name == feed);
        let public = parent
            .schema
            .as_deref()
            .is_none_or(|schema| schema == "public");
        let default = public && parent.name == feed.as_str();
        let (grpc_port, http_port) = existing.ports.unwrap_or((7432, 7433));
        Ok(Self {
            tables: wish
                .tables
                .or(tables.map(|(_, tables)| *tables))
                .unwrap_or(64),
            changes: wish.changes || existing.changes,
            feed,
            parent: (!default).then_some(parent),
            schema,
            grpc_port: wish.grpc_port.unwrap_or(grpc_port),
            http_port: wish.http_port.unwrap_or(http_port),
        })
    }

    /// Writes the files into the cluster's folder, and says which were left alone.
    pub fn write(&self, cluster: &DevCluster) -> Result<Vec<String>> {
        let dir = cluster.dir();
        let ports: Vec<(String, u16)> = cluster
            .instances()
            .iter()
            .map(|instance| (instance.name().to_owned(), instance.port()))
            .collect();
        let mut notes = Vec::new();
        let mut kept = |name: &str| {
            notes.push(format!(
                "{} has changes of yours: it stays",
                dir.join(name).display()
            ));
        };
        if !write_if_ours(&dir.join(SCHEMA), "--", &self.schema)? {
            kept(SCHEMA);
        }
        if !write_if_ours(&dir.join(CONFIG), "#", &self.config())? {
            kept(CONFIG);
        }
        let map = dir.join(MAP);
        if !write_if_ours(&map, "#", &self.map(&ports))? {
            let text = read(&map)?;
            let updated = with_ports(&text, &ports)
                .map_err(|error| Failure::from(error).context(map.display().to_string()))?;
            if updated != text {
                write(&map, &updated)?;
            }
            notes.push(format!(
                "{} has changes of yours: only the ports were brought up to date",
                map.display()
            ));
        }
        Ok(notes)
    }

    fn config(&self) -> String {
        let (grpc, http) = (self.grpc_port, self.http_port);
        let mut text = format!(
            "shardmap = \"{MAP}\"\nschema = [\"{SCHEMA}\"]\n\n\
             [grpc]\nlisten = \"127.0.0.1:{grpc}\"\n\n\
             [http]\nlisten = \"127.0.0.1:{http}\"\n\n\
             [postgres]\nuser = \"pgbraid\"\ndbname = \"pgbraid\"\n\
             password_file = \"secrets/password\"\nsslmode = \"disable\"\n\n\
             [moves]\nuser = \"postgres\"\npassword_file = \"secrets/superuser\"\n"
        );
        if let Some(parent) = &self.parent {
            let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
            let schema = parent.schema.as_deref().unwrap_or("public");
            let table = format!("{}.{}", quote(schema), quote(&parent.name));
            let table = Value::from(table);
            text.push_str(&format!("\n[feeds.{}]\ntable = {table}\n", self.feed));
        }
        text
    }

    fn map(&self, ports: &[(String, u16)]) -> String {
        let instance = |(name, port): &(String, u16)| {
            format!("[instances.{name}]\nhost = \"127.0.0.1\"\nport = {port}\n\n")
        };
        let mut text: String = ports.iter().map(instance).collect();
        text.push_str(&format!(
            "[feeds.{}]\ntables = {}\n",
            self.feed, self.tables
        ));
        if self.changes {
            text.push_str("changes = true\n");
        }
        text
    }
}

/// Deletes what is as we wrote it; gives what is not.
pub fn remove_unchanged(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut kept = Vec::new();
    for name in [CONFIG, MAP, SCHEMA] {
        let path = dir.join(name);
        match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Ok(text) if is_ours(&text) => {
                fs::remove_file(&path).or_fail(|| format!("cannot remove {}", path.display()))?;
            }
            _ => kept.push(path),
        }
    }
    Ok(kept)
}

/// The shard map with the ports of instances on this machine brought up to date.
fn with_ports(text: &str, ports: &[(String, u16)]) -> Result<String, toml_edit::TomlError> {
    let mut document: DocumentMut = text.parse()?;
    for (name, port) in ports {
        let instance = document
            .get_mut("instances")
            .and_then(|all| all.get_mut(name));
        let Some(instance) = instance else { continue };
        let local = instance.get("host").and_then(|host| host.as_str());
        if local != Some("127.0.0.1") {
            continue;
        }
        match instance.get_mut("port").and_then(|old| old.as_value_mut()) {
            Some(old) => {
                let decor = old.decor().clone();
                *old = Value::from(i64::from(*port));
                *old.decor_mut() = decor;
            }
            None => instance["port"] = toml_edit::value(i64::from(*port)),
        }
    }
    Ok(document.to_string())
}

/// Whether it was written: it was not there, or as we had written it.
fn write_if_ours(path: &Path, comment: &str, text: &str) -> Result<bool> {
    match fs::read_to_string(path) {
        Ok(old) if !is_ours(&old) => return Ok(false),
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(Failure::from(error).context(format!("cannot read {}", path.display())));
        }
        _ => {}
    }
    write(path, &marked(comment, text))?;
    Ok(true)
}

fn marked(comment: &str, text: &str) -> String {
    let sum = hash::bytes(text.as_bytes());
    format!("{comment} {MARK}{sum:016x}: a file with your changes is not overwritten.\n{text}")
}

fn unmarked(text: &str) -> &str {
    match text.split_once('\n') {
        Some((first, rest)) if first.contains(MARK) => rest,
        _ => text,
    }
}

fn is_ours(text: &str) -> bool {
    let Some((first, rest)) = text.split_once('\n') else {
        return false;
    };
    let sum = first.split_once(MARK).and_then(|(_, rest)| rest.get(..16));
    sum == Some(&format!("{:016x}", hash::bytes(rest.as_bytes())))
}

const MARK: &str = "Written by `pgbraid dev up`, checksum ";

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).or_fail(|| format!("cannot read {}", path.display()))
}

/// By way of another file: a router may be reading it.
fn write(path: &Path, text: &str) -> Result<()> {
    let draft = path.with_extension("new");
    fs::write(&draft, text)
        .and_then(|()| fs::rename(&draft, path))
        .or_fail(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests;
