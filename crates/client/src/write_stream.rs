//! The write stream itself: requests that are encoded already go out, answers come back.
//!
//! A request is encoded once, by whoever makes it. Sending it, and sending it again on another
//! stream, then costs one copy of its bytes: nothing is cloned or encoded a second time.

use bytes::{BufMut, Bytes};
use futures::FutureExt;
use pgbraid_proto::v1;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use tokio_stream::Stream;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status, Streaming};

use crate::client::{Client, MESSAGE_BYTES};
use crate::error::{ClientError, chain};

const PATH: &str = "/pgbraid.v1.Ingest/WriteStream";
/// Of `WriteRequest.sequence`.
const SEQUENCE: u32 = 1;
/// A field's key of one byte and the longest varint.
const SEQUENCE_BYTES: usize = 1 + 10;

/// An encoded [`WriteRequest`](v1::WriteRequest). Clones share its bytes.
#[derive(Debug, Clone)]
pub struct EncodedRequest {
    /// Returned in the answer.
    pub sequence: u64,
    /// The request without its sequence.
    pub body: Bytes,
}

impl EncodedRequest {
    /// Encodes a request, with this sequence in place of its own.
    pub fn new(sequence: u64, mut request: v1::WriteRequest) -> Self {
        // Zero is not encoded; the order of fields in a message is free.
        request.sequence = 0;
        let body = request.encode_to_vec().into();
        Self { sequence, body }
    }
}

/// The answers of a write stream, in the order of completion.
#[derive(Debug)]
pub struct Answers(Streaming<v1::WriteResponse>);

impl Answers {
    /// The next one; `None` when the router has ended the stream. Safe to cancel.
    ///
    /// # Errors
    /// If the stream breaks, or the router ends it with an error.
    pub async fn next(&mut self) -> Result<Option<v1::WriteResponse>, ClientError> {
        Ok(self.0.message().await?)
    }

    /// The next one if it is there already.
    pub fn ready(&mut self) -> Option<Result<Option<v1::WriteResponse>, ClientError>> {
        let message = self.0.message().now_or_never()?;
        Some(message.map_err(ClientError::from))
    }
}

impl Client {
    /// Opens a write stream. It ends when `requests` ends and all are answered; what to do when it
    /// breaks is the caller's: see [`Producer`](crate::Producer) for one that goes on.
    ///
    /// # Errors
    /// If the stream can't be opened.
    pub async fn write_stream(
        &self,
        requests: impl Stream<Item = EncodedRequest> + Send + 'static,
    ) -> Result<Answers, ClientError> {
        let mut grpc = Grpc::new(self.transport())
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES);
        grpc.ready().await.map_err(|error| {
            Status::unavailable(format!("the router is not ready: {}", chain(&error)))
        })?;
        let path = PathAndQuery::from_static(PATH);
        let answers = grpc
            .streaming(Request::new(requests), path, WriteCodec)
            .await?;
        Ok(Answers(answers.into_inner()))
    }
}

struct WriteCodec;

impl Codec for WriteCodec {
    type Encode = EncodedRequest;
    type Decode = v1::WriteResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for WriteCodec {
    type Item = EncodedRequest;
    type Error = Status;

    fn encode(&mut self, item: EncodedRequest, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(SEQUENCE_BYTES + item.body.len());
        if item.sequence != 0 {
            encode_key(SEQUENCE, WireType::Varint, out);
            encode_varint(item.sequence, out);
        }
        out.put_slice(&item.body);
        Ok(())
    }
}

impl Decoder for WriteCodec {
    type Item = v1::WriteResponse;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<v1::WriteResponse>, Status> {
        let answer = v1::WriteResponse::decode(from);
        answer.map(Some).map_err(|error| {
            Status::internal(format!("the router's answer can't be read: {error}"))
        })
    }
}
