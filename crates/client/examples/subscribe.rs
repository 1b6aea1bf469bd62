//! Follows all alerts: `cargo run -p pgbraid-client --example subscribe -- http://127.0.0.1:7432`.

use std::io::Write;

use pgbraid_client::{Client, ClientConfig, Event, Start, SubscribeOptions, Subscriber};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoint = std::env::args().nth(1);
    let endpoint = endpoint.unwrap_or_else(|| "http://127.0.0.1:7432".into());
    let client = Client::connect(ClientConfig::new(endpoint)).await?;
    let options = SubscribeOptions {
        start: Start::Earliest,
        ..SubscribeOptions::default()
    };
    let mut alerts = Subscriber::start(client, options).await?;
    loop {
        let received = alerts.next().await?;
        match received.event {
            Event::Alert(alert) => {
                writeln!(
                    std::io::stdout(),
                    "{} {} {}",
                    alert.rule,
                    alert.key,
                    alert.row
                )?;
            }
            Event::Disconnected { reason, .. } => eprintln!("{reason}; connecting again"),
            _ => {}
        }
        // A service keeps this, and starts with it the next time.
        let _position = received.token;
    }
}
