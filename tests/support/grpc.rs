//! gRPC by the tonic crate: a client and a server whose messages are bytes, so that nothing has
//! to be generated.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, BufMut, Bytes};
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Channel, Endpoint},
};

/// Messages as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(message);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// What a client does with a connection of its own.
#[derive(Debug, Clone)]
pub struct GrpcClient(tonic::client::Grpc<Channel>);

impl GrpcClient {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URI");
        Self(tonic::client::Grpc::new(endpoint.connect().await.expect("connect")))
    }

    /// Calls a method with a stream of messages, and has a stream of answers.
    pub async fn call(
        &mut self,
        method: &'static str,
        request: Request<impl tokio_stream::Stream<Item = Bytes> + Send + 'static>,
    ) -> Result<Response<Streaming<Bytes>>, Status> {
        self.0.ready().await.expect("an open connection");
        self.0.streaming(request, method.parse().expect("a path"), Plain).await
    }

    /// Calls a method with one message, and has one answer.
    pub async fn unary(
        &mut self,
        method: &'static str,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, Status> {
        self.0.ready().await.expect("an open connection");
        self.0.unary(request, method.parse().expect("a path"), Plain).await
    }
}

/// One call at the server.
#[derive(Debug)]
pub struct Call {
    /// Path of the method.
    pub method: String,
    /// Its metadata and messages.
    pub request: Request<Streaming<Bytes>>,
    /// Where answers go; the call has ended for the client when this is closed.
    pub answers: mpsc::Sender<Result<Bytes, Status>>,
}

type Answers = ReceiverStream<Result<Bytes, Status>>;

/// What a call begins with: its answers, or a status alone.
pub type Begun = Result<(), Status>;

/// A server.
#[derive(Debug)]
pub struct GrpcServer {
    address: SocketAddr,
    task: JoinHandle<()>,
}

struct Service<F> {
    method: String,
    answer: F,
}

impl<F, R> tower_service::Service<Request<Streaming<Bytes>>> for Service<F>
where
    F: Fn(Call) -> R,
    R: Future<Output = Begun> + Send + 'static,
{
    type Response = Response<Answers>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answers>, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let (answers, stream) = mpsc::channel(16);
        let begun = (self.answer)(Call { method: self.method.clone(), request, answers });
        Box::pin(async move {
            begun.await?;
            Ok(Response::new(ReceiverStream::new(stream)))
        })
    }
}

impl GrpcServer {
    /// Serves with `answer`, which is called for each call and says how it begins; the answers
    /// themselves are sent from a task of its own.
    pub async fn start<F, R>(answer: F) -> Self
    where
        F: Fn(Call) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Begun> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind");
        let address = listener.local_addr().expect("address");
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("TCP_NODELAY");
                let answer = answer.clone();
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let method = request.uri().path().to_owned();
                    let service = Service { method, answer: answer.clone() };
                    async move {
                        let mut grpc = tonic::server::Grpc::new(Plain);
                        Ok::<_, Infallible>(grpc.streaming(service, request).await)
                    }
                });
                let server = http2::Builder::new(TokioExecutor::new());
                connections.spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, task }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for GrpcServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
