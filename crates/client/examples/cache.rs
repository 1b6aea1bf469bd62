//! Looks up rows of a feed in a cache that the feed's changes keep in step.
//!
//! With `./run demo` (it says where its router listens; its feed tells of its changes):
//! `cargo run -p pgbraid-client --example cache -- http://127.0.0.1:PORT orders`

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgbraid_client::{Cache, CacheConfig, ChangeEvent, Client, ClientConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let endpoint = args
        .next()
        .unwrap_or_else(|| "http://127.0.0.1:7432".into());
    let feed = args.next().unwrap_or_else(|| "orders".into());
    let client = Client::connect(ClientConfig::new(endpoint)).await?;

    // The keys that change are those that this example looks up.
    let hot = Arc::new(Mutex::new(Vec::<String>::new()));
    let mut config = CacheConfig::new(feed);
    let changed = hot.clone();
    config.observer = Some(Arc::new(move |event| match event {
        ChangeEvent::Changes(batch) => {
            let keys = batch.changes.iter().flat_map(|change| &change.keys);
            let mut hot = changed.lock().expect("no panic under this lock");
            hot.extend(keys.take(10).cloned());
            let old = hot.len().saturating_sub(100);
            hot.drain(..old);
        }
        ChangeEvent::Reset(reset) => eprintln!("RESET {}: {}", reset.instance, reset.reason),
        ChangeEvent::Live(live) => eprintln!("LIVE {}", live.instance),
        ChangeEvent::Disconnected { reason, .. } => eprintln!("RESET: {reason}"),
        _ => {}
    }));
    let cache = Cache::start(client, config).await?;
    cache.live().await?;

    let mut out = std::io::stdout();
    loop {
        let keys = hot.lock().expect("no panic under this lock").clone();
        let mut last = None;
        for key in keys {
            // From memory, or from the instance that owns the key.
            match cache.get(key).await {
                Ok(row) => last = row.or(last),
                Err(error) if error.is_retriable() => eprintln!("{error}"),
                Err(error) => return Err(error.into()),
            }
        }
        writeln!(out, "{:?}", cache.stats())?;
        if let Some(row) = last {
            writeln!(out, "  {row}")?;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
