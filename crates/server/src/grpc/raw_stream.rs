//! `WriteStream` with its requests as they come off the wire.
//!
//! The generated service decodes every request into a message. Here the stream's handler gets the
//! bytes, and reads most of them without a message. All other methods go to the generated service.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use pgbraid_proto::v1::ingest_server::IngestServer;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http,
    server::{Grpc, NamedService, StreamingService},
};

use super::{
    ingest::Service,
    write_stream::{self, Answer, Answers},
};
use crate::state::Shared;

const PATH: &str = "/pgbraid.v1.Ingest/WriteStream";

/// The service `Ingest` as it is served.
#[derive(Clone)]
pub(super) struct RawIngest {
    shared: Arc<Shared>,
    generated: IngestServer<Service>,
    max_message: usize,
}

impl RawIngest {
    pub fn new(shared: Arc<Shared>, max_message: usize) -> Self {
        Self {
            generated: IngestServer::new(Service::new(shared.clone()))
                .max_decoding_message_size(max_message)
                .max_encoding_message_size(usize::MAX),
            shared,
            max_message,
        }
    }
}

impl NamedService for RawIngest {
    const NAME: &'static str = <IngestServer<Service> as NamedService>::NAME;
}

type Answered = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl tower::Service<http::Request<Body>> for RawIngest {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answered;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answered {
        if request.uri().path() != PATH {
            return self.generated.call(request);
        }
        let (shared, max_message) = (self.shared.clone(), self.max_message);
        Box::pin(async move {
            let mut grpc = Grpc::new(RawCodec)
                .apply_max_message_size_config(Some(max_message), Some(usize::MAX));
            Ok(grpc.streaming(WriteStream(shared), request).await)
        })
    }
}

struct WriteStream(Arc<Shared>);

impl StreamingService<Bytes> for WriteStream {
    type Response = Answer;
    type ResponseStream = Answers;
    type Future = std::future::Ready<Result<Response<Answers>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let answers = write_stream::start(self.0.clone(), request.into_inner());
        std::future::ready(Ok(Response::new(answers)))
    }
}

/// Takes requests as bytes, and encodes answers as usual.
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Answer;
    type Decode = Bytes;
    type Encoder = AnswerEncoder;
    type Decoder = RawDecoder;

    fn encoder(&mut self) -> AnswerEncoder {
        AnswerEncoder
    }

    fn decoder(&mut self) -> RawDecoder {
        RawDecoder
    }
}

struct AnswerEncoder;

impl Encoder for AnswerEncoder {
    type Item = Answer;
    type Error = Status;

    fn encode(&mut self, answer: Answer, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        answer
            .encode(to)
            .map_err(|error| Status::internal(format!("the answer can't be encoded: {error}")))
    }
}

struct RawDecoder;

impl Decoder for RawDecoder {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
