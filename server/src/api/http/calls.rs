//! The five calls: a request, one function of the service, an answer.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::http::request::Parts;
use axum::response::Response;
use serde::de::DeserializeOwned;
use synchrotron_core::wire::{DigestRequest, Fault, FetchRequest, SessionRequest, SnapshotRequest, UploadBatch};
use synchrotron_http::media::Media;

use super::Api;
use super::answer::{Refusal, answer, upload_answer};
use super::body::{self, BodyBounds};
use super::etag::{self, Tagged};
use super::negotiation::call_form;
use crate::auth::Principal;

pub(super) async fn session(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    let (media, head, served) =
        api.serve(request, async |who, asked: SessionRequest| api.service.session(&who, asked).await).await;
    etag::answer(media, &head.headers, served.map(Tagged::session))
}

pub(super) async fn fetch(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    let (media, head, served) =
        api.serve(request, async |who, asked: FetchRequest| api.service.fetch(&who, asked).await).await;
    etag::answer(media, &head.headers, served.map(Tagged::page))
}

pub(super) async fn digest(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    let (media, head, served) =
        api.serve(request, async |who, asked: DigestRequest| api.service.digest(&who, asked).await).await;
    etag::answer(media, &head.headers, served.map(Tagged::digest))
}

pub(super) async fn snapshot(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    let (media, _, served) =
        api.serve(request, async |who, asked: SnapshotRequest| api.service.snapshot(&who, asked).await).await;
    answer(media, served)
}

pub(super) async fn upload(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    let (media, _, served) =
        api.serve(request, async |who, batch: UploadBatch| Ok(api.service.upload(&who, batch).await)).await;
    upload_answer(media, served)
}

impl Api {
    /// Who asks, what is asked, and then the call; with the form in which to answer.
    async fn serve<Q: DeserializeOwned, A>(
        &self,
        request: Request<Body>,
        call: impl AsyncFnOnce(Principal, Q) -> Result<A, Fault>,
    ) -> (Media, Parts, Result<A, Refusal>) {
        let (head, body) = request.into_parts();
        let bounds = BodyBounds { bytes_max: self.body_bytes_max(), within: self.settings().body_within };
        let form = call_form(&head.headers);
        // JSON, if the form is what is wrong.
        let media = *form.as_ref().unwrap_or(&Media::Json);
        let admitted = match self.admit(&head.headers).await.and_then(|admitted| form.map(|_| admitted)) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                body::drain(body.into_data_stream(), bounds).await;
                return (media, head, Err(refusal));
            }
        };
        let served = match body::receive(&head.headers, body, bounds).await {
            Ok(asked) => call(admitted.principal.clone(), asked).await.map_err(Refusal::from),
            Err(refusal) => Err(refusal),
        };
        (media, head, served)
    }
}
