use std::sync::{Arc, Mutex};

use pgbraid_proto::v1::alerts_server::{Alerts, AlertsServer};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::*;
use crate::ClientConfig;

type Responses = Vec<Result<v1::SubscribeResponse, Status>>;

/// Answers one subscription after the other from a script, and keeps where each started.
#[derive(Clone, Default)]
struct Fake {
    script: Arc<Mutex<VecDeque<Responses>>>,
    starts: Arc<Mutex<Vec<Option<WireStart>>>>,
}

fn no_groups() -> Status {
    Status::unimplemented("this one has only subscribers")
}

#[tonic::async_trait]
impl Alerts for Fake {
    type SubscribeStream =
        tokio_stream::Iter<std::vec::IntoIter<Result<v1::SubscribeResponse, Status>>>;

    async fn subscribe(
        &self,
        request: Request<v1::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        self.starts.lock().unwrap().push(request.into_inner().start);
        let script = self.script.lock().unwrap().pop_front();
        let script = script.ok_or_else(|| Status::invalid_argument("the script has ended"))?;
        Ok(Response::new(tokio_stream::iter(script)))
    }

    type ConsumeStream = tonic::codegen::BoxStream<v1::ConsumeResponse>;

    async fn consume(
        &self,
        _: Request<tonic::Streaming<v1::ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        Err(no_groups())
    }

    async fn pull(
        &self,
        _: Request<v1::PullRequest>,
    ) -> Result<Response<v1::PullResponse>, Status> {
        Err(no_groups())
    }

    async fn settle(
        &self,
        _: Request<v1::SettleRequest>,
    ) -> Result<Response<v1::SettleResponse>, Status> {
        Err(no_groups())
    }

    async fn put_group(
        &self,
        _: Request<v1::PutGroupRequest>,
    ) -> Result<Response<v1::PutGroupResponse>, Status> {
        Err(no_groups())
    }

    async fn list_groups(
        &self,
        _: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        Err(no_groups())
    }

    async fn remove_group(
        &self,
        _: Request<v1::RemoveGroupRequest>,
    ) -> Result<Response<v1::RemoveGroupResponse>, Status> {
        Err(no_groups())
    }

    async fn replay_group(
        &self,
        _: Request<v1::ReplayGroupRequest>,
    ) -> Result<Response<v1::ReplayGroupResponse>, Status> {
        Err(no_groups())
    }

    async fn list_dead_letters(
        &self,
        _: Request<v1::ListDeadLettersRequest>,
    ) -> Result<Response<v1::ListDeadLettersResponse>, Status> {
        Err(no_groups())
    }

    async fn requeue_dead_letters(
        &self,
        _: Request<v1::DeadLettersRequest>,
    ) -> Result<Response<v1::DeadLettersResponse>, Status> {
        Err(no_groups())
    }

    async fn drop_dead_letters(
        &self,
        _: Request<v1::DeadLettersRequest>,
    ) -> Result<Response<v1::DeadLettersResponse>, Status> {
        Err(no_groups())
    }
}

fn alert(seq: i64, token: &str) -> Result<v1::SubscribeResponse, Status> {
    Ok(v1::SubscribeResponse {
        event: Some(WireEvent::Alert(v1::Alert {
            instance: "db0".into(),
            seq,
            ..Default::default()
        })),
        token: token.into(),
    })
}

#[tokio::test]
async fn it_resumes_after_the_last_token_without_repeats() {
    let fake = Fake::default();
    fake.script.lock().unwrap().extend([
        vec![
            alert(1, ""),
            alert(2, "t2"),
            alert(3, ""),
            Err(Status::unavailable("lost")),
        ],
        // From t2: 3 again, then new ones.
        vec![alert(3, ""), alert(4, "t4"), alert(5, "t5")],
    ]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let service = AlertsServer::new(fake.clone());
    let serve = tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(serve);

    let client = Client::connect(ClientConfig::new(endpoint)).await.unwrap();
    let options = SubscribeOptions {
        start: Start::Earliest,
        backoff: Backoff {
            min: Duration::from_millis(1),
            max: Duration::from_millis(2),
        },
        ..SubscribeOptions::default()
    };
    let mut subscriber = Subscriber::start(client, options).await.unwrap();
    let (mut seqs, mut lost) = (Vec::new(), 0);
    let error = loop {
        match subscriber.next().await.map(|received| received.event) {
            Ok(Event::Alert(alert)) => seqs.push(alert.seq),
            Ok(Event::Disconnected { .. }) => lost += 1,
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!((seqs, lost), (vec![1, 2, 3, 4, 5], 2));
    assert_eq!(error.to_string(), "the script has ended");
    assert_eq!(subscriber.token(), Some("t5"));
    let starts = fake.starts.lock().unwrap().clone();
    let token = |text: &str| Some(WireStart::Token(text.into()));
    assert_eq!(starts[1..], [token("t2"), token("t5")]);
    assert!(matches!(subscriber.next().await, Err(ClientError::Closed)));
}
