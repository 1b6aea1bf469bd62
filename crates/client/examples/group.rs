//! A member of a consumer group; start several, and they share the alerts:
//! `cargo run -p pgbraid-client --example group -- http://127.0.0.1:7432 [http://another:7432 ...]`.

use std::sync::Arc;
use std::time::Duration;

use pgbraid_client::{
    Client, ClientConfig, ConsumeOptions, GroupConsumer, Message, Nack, RunOptions, Start, proto,
};

const GROUP: &str = "example";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut endpoints = std::env::args().skip(1);
    let first = endpoints.next();
    let mut config = ClientConfig::new(first.unwrap_or_else(|| "http://127.0.0.1:7432".into()));
    // When its router is gone, a member goes on at another one.
    config.fallbacks = endpoints.collect();
    let client = Client::connect(config).await?;

    let groups = client.groups();
    if let Err(error) = groups.list(Some(GROUP)).await {
        if error.code() != tonic::Code::NotFound {
            return Err(error.into());
        }
        let group = proto::Group {
            name: GROUP.into(),
            visibility_timeout: Duration::from_secs(30).try_into().ok(),
            max_deliveries: 3,
            ..Default::default()
        };
        // Of two members that do this at once, one makes it.
        if let Err(error) = groups.put(group, Some(0), &Start::Earliest).await
            && error.code() != tonic::Code::Aborted
        {
            return Err(error.into());
        }
    }

    let consumer = GroupConsumer::join(client, ConsumeOptions::new(GROUP)).await?;
    let stop = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    let options = RunOptions {
        concurrency: 8,
        ..RunOptions::default()
    };
    let handled = consumer.run_until(options, stop, handle).await?;
    println!("{} acked, {} nacked", handled.acked, handled.nacked);
    Ok(())
}

/// Ok acks. Err delivers it again later, and makes it a dead letter the third time.
async fn handle(message: Arc<Message>) -> Result<(), Nack> {
    let alert = &message.alert;
    if alert.row.is_empty() {
        return Err(Nack::terminate("there is no row"));
    }
    println!(
        "{}/{} {} {} (delivery {})",
        alert.instance, alert.seq, alert.rule, alert.key, message.delivery
    );
    Ok(())
}
