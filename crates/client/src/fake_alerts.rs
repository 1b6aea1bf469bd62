//! A router that speaks the service Alerts from a script.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use pgbraid_proto::v1::alerts_server::{Alerts, AlertsServer};
use pgbraid_proto::v1::{self, consume_request::Request as Ask};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use crate::{Client, ClientConfig};

pub(crate) type Responses = Vec<Result<v1::SubscribeResponse, Status>>;
pub(crate) type Answers = mpsc::Sender<Result<v1::ConsumeResponse, Status>>;

/// What the session of this number does with a request; false ends it.
type Act = dyn Fn(usize, Ask, &Answers) -> bool + Send + Sync;

#[derive(Clone)]
pub(crate) struct Fake {
    /// Answers of one subscription after the other.
    pub script: Arc<Mutex<VecDeque<Responses>>>,
    /// Where each subscription started.
    pub starts: Arc<Mutex<Vec<Option<v1::subscribe_request::Start>>>>,
    act: Arc<Act>,
    sessions: Arc<AtomicUsize>,
}

fn unasked() -> Status {
    Status::unimplemented("not in the script")
}

impl Fake {
    pub(crate) fn new(act: impl Fn(usize, Ask, &Answers) -> bool + Send + Sync + 'static) -> Self {
        Self {
            script: Arc::default(),
            starts: Arc::default(),
            act: Arc::new(act),
            sessions: Arc::default(),
        }
    }

    /// A client of it.
    pub(crate) async fn client(&self) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let serve = tonic::transport::Server::builder()
            .add_service(AlertsServer::new(self.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serve);
        Client::connect(ClientConfig::new(endpoint)).await.unwrap()
    }
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

    type ConsumeStream = ReceiverStream<Result<v1::ConsumeResponse, Status>>;

    async fn consume(
        &self,
        request: Request<Streaming<v1::ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        let session = self.sessions.fetch_add(1, Ordering::SeqCst);
        let mut requests = request.into_inner();
        let (out, answers) = mpsc::channel(64);
        let act = Arc::clone(&self.act);
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                if !request
                    .request
                    .is_some_and(|asked| act(session, asked, &out))
                {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn pull(
        &self,
        _: Request<v1::PullRequest>,
    ) -> Result<Response<v1::PullResponse>, Status> {
        Err(unasked())
    }

    async fn settle(
        &self,
        _: Request<v1::SettleRequest>,
    ) -> Result<Response<v1::SettleResponse>, Status> {
        Err(unasked())
    }

    async fn put_group(
        &self,
        _: Request<v1::PutGroupRequest>,
    ) -> Result<Response<v1::PutGroupResponse>, Status> {
        Err(unasked())
    }

    async fn list_groups(
        &self,
        _: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        Err(unasked())
    }

    async fn remove_group(
        &self,
        _: Request<v1::RemoveGroupRequest>,
    ) -> Result<Response<v1::RemoveGroupResponse>, Status> {
        Err(unasked())
    }

    async fn replay_group(
        &self,
        _: Request<v1::ReplayGroupRequest>,
    ) -> Result<Response<v1::ReplayGroupResponse>, Status> {
        Err(unasked())
    }

    async fn list_dead_letters(
        &self,
        _: Request<v1::ListDeadLettersRequest>,
    ) -> Result<Response<v1::ListDeadLettersResponse>, Status> {
        Err(unasked())
    }

    async fn requeue_dead_letters(
        &self,
        _: Request<v1::DeadLettersRequest>,
    ) -> Result<Response<v1::DeadLettersResponse>, Status> {
        Err(unasked())
    }

    async fn drop_dead_letters(
        &self,
        _: Request<v1::DeadLettersRequest>,
    ) -> Result<Response<v1::DeadLettersResponse>, Status> {
        Err(unasked())
    }
}
