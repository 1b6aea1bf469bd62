//! Follows all alerts, and goes on where it was when it is started again:
//! `cargo run -p pgbraid-client --example subscribe -- http://127.0.0.1:7432 position.token`.

use std::io::Write;

use pgbraid_client::{
    Client, ClientConfig, Event, FileTokenStore, Start, StoredSubscriber, SubscribeOptions,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let endpoint = args.next();
    let endpoint = endpoint.unwrap_or_else(|| "http://127.0.0.1:7432".into());
    let file = args.next().unwrap_or_else(|| "position.token".into());
    let client = Client::connect(ClientConfig::new(endpoint)).await?;
    let options = SubscribeOptions {
        // Only the first time: then the file says where it was.
        start: Start::Earliest,
        ..SubscribeOptions::default()
    };
    let mut alerts = StoredSubscriber::start(client, options, FileTokenStore::new(file)).await?;
    loop {
        // The call says that the event before is handled; what is not comes again after a crash.
        // Drop repeats by (instance, seq) where they matter.
        let received = tokio::select! {
            received = alerts.next() => received?,
            _ = tokio::signal::ctrl_c() => break,
        };
        match received.event {
            Event::Alert(alert) => writeln!(
                std::io::stdout(),
                "{}/{} {} {} {}",
                alert.instance,
                alert.seq,
                alert.rule,
                alert.key,
                alert.row
            )?,
            Event::Disconnected { reason, .. } => eprintln!("{reason}; connecting again"),
            _ => {}
        }
    }
    alerts.flush().await?;
    Ok(())
}
