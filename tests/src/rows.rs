//! Requests, written short.

use bytes::Bytes;
use pgbraid_proto::v1::{
    self, admin_client::AdminClient, alerts_client::AlertsClient, column::Values,
    ingest_client::IngestClient, rows_client::RowsClient, value::Kind, write_request::Form,
};
use tonic::transport::Channel;

use crate::Router;

/// A channel to a router.
///
/// # Panics
/// If the router can't be reached.
pub async fn channel(router: &Router) -> Channel {
    Channel::from_shared(format!("http://{}", router.grpc))
        .expect("the address is one")
        .connect()
        .await
        .expect("the router answers")
}

/// The service Ingest.
pub async fn ingest(router: &Router) -> IngestClient<Channel> {
    IngestClient::new(channel(router).await).max_decoding_message_size(usize::MAX)
}

/// The service Rows.
pub async fn reads(router: &Router) -> RowsClient<Channel> {
    RowsClient::new(channel(router).await).max_decoding_message_size(usize::MAX)
}

/// The service Alerts.
pub async fn alerts(router: &Router) -> AlertsClient<Channel> {
    AlertsClient::new(channel(router).await).max_decoding_message_size(usize::MAX)
}

async fn channel_at(address: &str) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("the address is one");
    endpoint.connect().await
}

/// The service Alerts at an address, if there is a router.
///
/// # Errors
/// If it can't be reached.
pub async fn alerts_at(address: &str) -> Result<AlertsClient<Channel>, tonic::transport::Error> {
    let client = AlertsClient::new(channel_at(address).await?);
    Ok(client.max_decoding_message_size(usize::MAX))
}

/// The service Admin at an address, if there is a router.
///
/// # Errors
/// If it can't be reached.
pub async fn admin_at(address: &str) -> Result<AdminClient<Channel>, tonic::transport::Error> {
    channel_at(address).await.map(AdminClient::new)
}

/// The service Admin.
pub async fn admin(router: &Router) -> AdminClient<Channel> {
    AdminClient::new(channel(router).await)
}

/// A whole number.
pub fn int(value: i64) -> v1::Value {
    v1::Value {
        kind: Some(Kind::Int(value)),
    }
}

/// A text.
pub fn text(value: impl Into<String>) -> v1::Value {
    v1::Value {
        kind: Some(Kind::Text(value.into())),
    }
}

/// NULL.
pub fn null() -> v1::Value {
    v1::Value {
        kind: Some(Kind::Null(v1::Null {})),
    }
}

/// No value: the stored one stays.
pub fn absent() -> v1::Value {
    v1::Value { kind: None }
}

/// A request of rows.
pub fn rows(
    feed: &str,
    columns: &[&str],
    rows: impl IntoIterator<Item = (v1::Value, Vec<v1::Value>)>,
) -> v1::WriteRequest {
    v1::WriteRequest {
        feed: feed.to_owned(),
        form: Some(Form::Rows(v1::RowBatch {
            columns: columns.iter().map(|name| (*name).to_owned()).collect(),
            rows: rows
                .into_iter()
                .map(|(key, values)| v1::Row {
                    operation: 0,
                    key: Some(key),
                    values,
                })
                .collect(),
        })),
        ..Default::default()
    }
}

/// A request of deletes.
pub fn deletes(feed: &str, keys: impl IntoIterator<Item = v1::Value>) -> v1::WriteRequest {
    let rows = keys
        .into_iter()
        .map(|key| v1::Row {
            operation: v1::Operation::Delete.into(),
            key: Some(key),
            values: Vec::new(),
        })
        .collect();
    v1::WriteRequest {
        feed: feed.to_owned(),
        form: Some(Form::Rows(v1::RowBatch {
            columns: Vec::new(),
            rows,
        })),
        ..Default::default()
    }
}

/// A column of int8.
pub fn int64s(name: &str, values: &[i64]) -> v1::Column {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    column(name, Values::Int64s(bytes.into()))
}

/// A column of int4.
pub fn int32s(name: &str, values: &[i32]) -> v1::Column {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    column(name, Values::Int32s(bytes.into()))
}

/// A column without NULLs.
pub fn column(name: &str, values: Values) -> v1::Column {
    v1::Column {
        name: name.to_owned(),
        nulls: Bytes::new(),
        values: Some(values),
    }
}

/// A columnar request.
pub fn columnar(feed: &str, key: v1::Column, columns: Vec<v1::Column>) -> v1::WriteRequest {
    v1::WriteRequest {
        feed: feed.to_owned(),
        form: Some(Form::Columnar(v1::ColumnarRows {
            operation: 0,
            key: Some(key),
            columns,
        })),
        ..Default::default()
    }
}

/// A column's texts, end to end.
pub fn utf8(data: &[u8], ends: &[u32]) -> Values {
    Values::Utf8(v1::Utf8 {
        data: data.to_vec().into(),
        ends: ends
            .iter()
            .flat_map(|end| end.to_le_bytes())
            .collect::<Vec<u8>>()
            .into(),
    })
}
