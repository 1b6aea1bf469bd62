use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use pgbraid_proto::v1::ingest_server::{Ingest, IngestServer};
use tokio::net::TcpListener;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, Request, Response, Status, Streaming};

use super::*;
use crate::{ClientConfig, Columns};

type Answers = ReceiverStream<Result<v1::WriteResponse, Status>>;
type Answer = dyn Fn(usize, &v1::WriteRequest) -> Result<v1::WriteResponse, Status> + Send + Sync;

/// A router that answers by a function of (number of the stream, request).
struct Fake {
    answer: Arc<Answer>,
    streams: AtomicUsize,
    seen: Arc<Mutex<Vec<v1::WriteRequest>>>,
}

#[tonic::async_trait]
impl Ingest for Fake {
    type WriteStreamStream = Answers;

    async fn write(
        &self,
        _: Request<v1::WriteRequest>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        Err(Status::unimplemented("streams only"))
    }

    async fn write_stream(
        &self,
        request: Request<Streaming<v1::WriteRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let stream = self.streams.fetch_add(1, Ordering::SeqCst);
        let mut requests = request.into_inner();
        let (out, answers) = tokio::sync::mpsc::channel(16);
        let (answer, seen) = (Arc::clone(&self.answer), Arc::clone(&self.seen));
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                seen.lock().unwrap().push(request.clone());
                let answer = answer(stream, &request);
                let end = answer.is_err();
                if out.send(answer).await.is_err() || end {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

type Seen = Arc<Mutex<Vec<v1::WriteRequest>>>;

async fn fake(
    answer: impl Fn(usize, &v1::WriteRequest) -> Result<v1::WriteResponse, Status>
    + Send
    + Sync
    + 'static,
) -> (Client, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let seen = Seen::default();
    let fake = Fake {
        answer: Arc::new(answer),
        streams: AtomicUsize::new(0),
        seen: Arc::clone(&seen),
    };
    let serve = tonic::transport::Server::builder()
        .add_service(IngestServer::new(fake))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(serve);
    let client = Client::connect(ClientConfig::new(endpoint)).await.unwrap();
    (client, seen)
}

fn config(in_flight: usize) -> ProducerConfig {
    ProducerConfig {
        in_flight,
        backoff: Backoff {
            min: Duration::from_millis(1),
            max: Duration::from_millis(5),
        },
        ..ProducerConfig::default()
    }
}

fn request(keys: std::ops::Range<i64>) -> v1::WriteRequest {
    let columns = Columns::new("orders").keys_int8(keys.clone());
    columns
        .texts("note", keys.map(|key| Some(key.to_string())))
        .build()
        .unwrap()
}

fn keys_of(request: &v1::WriteRequest) -> Vec<i64> {
    let Some(v1::write_request::Form::Columnar(rows)) = &request.form else {
        panic!("not columnar")
    };
    let Some(v1::column::Values::Int64s(bytes)) = &rows.key.as_ref().unwrap().values else {
        panic!("not int64s")
    };
    let number = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().unwrap());
    bytes.chunks_exact(8).map(number).collect()
}

fn committed(request: &v1::WriteRequest) -> v1::WriteResponse {
    v1::WriteResponse {
        sequence: request.sequence,
        rows_committed: keys_of(request).len() as u64,
        ..Default::default()
    }
}

#[tokio::test]
async fn a_lost_stream_is_made_again_and_everything_resent_in_order() {
    // The first stream ends at the third request, before it answered the second.
    let (client, seen) = fake(|stream, request| match (stream, request.sequence) {
        (0, 3..) => Err(Status::unavailable("going away")),
        _ => Ok(committed(request)),
    })
    .await;
    let producer = Producer::new(client, config(8));
    let mut pending = Vec::new();
    for i in 0..6 {
        pending.push(producer.send(request(i * 10..i * 10 + 10)).await.unwrap());
    }
    for write in pending {
        assert_eq!(write.await.unwrap().committed, 10);
    }
    let seen = seen.lock().unwrap();
    let sequences: Vec<_> = seen.iter().map(|request| request.sequence).collect();
    let again = sequences
        .iter()
        .rposition(|&sequence| sequence == 3)
        .unwrap();
    assert_eq!(sequences[again..], [3, 4, 5, 6], "{sequences:?}");
}

#[tokio::test]
async fn the_window_is_a_bound() {
    let (client, _) = fake(|_, request| Ok(committed(request))).await;
    let producer = Producer::new(client, config(2));
    for i in 0..20 {
        drop(producer.send(request(i..i + 1)).await.unwrap());
        assert!(2 - producer.window.available_permits() <= 2);
    }
    producer.flush().await;
    assert_eq!(producer.window.available_permits(), 2);
}

/// Refuses odd keys as unavailable, each until it was tried three times, and key 7 as invalid.
fn moody() -> impl Fn(usize, &v1::WriteRequest) -> Result<v1::WriteResponse, Status> {
    let tries = Mutex::new(std::collections::HashMap::<i64, u32>::new());
    move |_, request| {
        let mut refused = Vec::new();
        for (index, key) in keys_of(request).into_iter().enumerate() {
            let mut tries = tries.lock().unwrap();
            let tried = tries.entry(key).or_default();
            *tried += 1;
            let code = match key {
                7 => Code::InvalidArgument,
                _ if key % 2 == 1 && *tried < 3 => Code::Unavailable,
                _ => continue,
            };
            refused.push(v1::RefusedRow {
                index: index as u32,
                code: code as i32,
                ..Default::default()
            });
        }
        let mut response = committed(request);
        response.rows_committed -= refused.len() as u64;
        response.refused = refused;
        Ok(response)
    }
}

#[tokio::test]
async fn refused_rows_are_the_callers_unless_asked_for() {
    let (client, _) = fake(moody()).await;
    let producer = Producer::new(client.clone(), config(8));
    let ack = producer.write(request(0..10)).await.unwrap();
    assert_eq!((ack.committed, ack.refused.len()), (5, 5));

    let (client, seen) = fake(moody()).await;
    let retrying = ProducerConfig {
        retry_refused: Some(Duration::from_secs(30)),
        ..config(8)
    };
    let producer = Producer::new(client, retrying);
    let ack = producer.write(request(0..10)).await.unwrap();
    let refused: Vec<_> = ack.refused.iter().map(|row| row.index).collect();
    assert_eq!((ack.committed, refused), (9, vec![7]));
    let seen = seen.lock().unwrap();
    let sent: Vec<_> = seen.iter().map(keys_of).collect();
    assert_eq!(sent[1..], [[1, 3, 5, 9], [1, 3, 5, 9]]);
    let Some(v1::write_request::Form::Columnar(rows)) = &seen[2].form else {
        panic!("not columnar")
    };
    let Some(v1::column::Values::Utf8(texts)) = &rows.columns[0].values else {
        panic!("not texts")
    };
    assert_eq!(texts.data.as_ref(), b"1359");
}

#[tokio::test]
async fn a_refused_request_and_a_refused_stream() {
    let (client, _) = fake(|_, request| match request.feed.as_str() {
        "nobody" => Err(Status::unauthenticated("no token")),
        _ => Ok(v1::WriteResponse {
            sequence: request.sequence,
            status: Some(v1::Status {
                code: Code::InvalidArgument as i32,
                message: "no feed x".into(),
                ..Default::default()
            }),
            ..Default::default()
        }),
    })
    .await;
    let producer = Producer::new(client, config(8));
    let error = producer.write(request(0..1)).await.unwrap_err();
    assert_eq!(error.to_string(), "no feed x");
    let mut other = request(0..1);
    other.feed = "nobody".into();
    let error = producer.write(other).await.unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated);
    let error = producer.write(request(0..1)).await.unwrap_err();
    assert!(matches!(error, ClientError::Closed), "{error}");
}

#[tokio::test]
async fn what_was_sent_is_written_when_the_producer_is_gone() {
    let (client, seen) = fake(|_, request| Ok(committed(request))).await;
    let producer = Producer::new(client, config(8));
    let pending = producer.send(request(0..5)).await.unwrap();
    drop(producer);
    assert_eq!(pending.await.unwrap().committed, 5);
    assert_eq!(seen.lock().unwrap().len(), 1);
}
