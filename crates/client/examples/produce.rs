//! Writes a thousand orders: `cargo run -p pgbraid-client --example produce -- http://127.0.0.1:7432`.
//!
//! The feed is orders, with an int8 key, a text status and an int4 items: that of `README.md`, of
//! `pgbraid dev up` and of the demo.

use pgbraid_client::{Client, ClientConfig, Columns, Producer, ProducerConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoint = std::env::args().nth(1);
    let endpoint = endpoint.unwrap_or_else(|| "http://127.0.0.1:7432".into());
    let client = Client::connect(ClientConfig::new(endpoint)).await?;
    let producer = Producer::new(client, ProducerConfig::default());

    let mut pending = Vec::new();
    for batch in 0..10i64 {
        let keys = batch * 100..(batch + 1) * 100;
        let request = Columns::new("orders")
            .keys_int8(keys.clone())
            .texts("status", keys.clone().map(|_| Some("created")))
            .int32s("items", keys.map(|key| (key % 5) as i32 + 1))
            .build()?;
        // Waits only when the window is full.
        pending.push(producer.send(request).await?);
    }
    let mut committed = 0;
    for write in pending {
        let ack = write.await?;
        committed += ack.committed;
        for row in ack.refused {
            eprintln!(
                "row {} was refused ({}): {}",
                row.index, row.reason, row.message
            );
        }
    }
    println!("{committed} rows committed");
    Ok(())
}
