//! The five calls: a request, one function of the service, an answer.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Request};
use axum::response::Response;
use serde::de::DeserializeOwned;
use synchrotron_core::wire::{DigestRequest, Fault, FetchRequest, SessionRequest, SnapshotRequest, UploadBatch};
use synchrotron_http::media::Media;

use super::Api;
use super::admission::Admitted;
use super::answer::{Refusal, answer, upload_answer};
use super::body::{self, BodyBounds};
use super::etag::{self, Tagged};
use super::negotiation::call_form;
use super::sent::held_until_sent;
use crate::auth::Principal;

pub(super) async fn session(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    let call = async |who, asked: SessionRequest| api.service.session(&who, asked).await;
    api.serve(request, call, |media, asked, served| etag::answer(media, asked, served.map(Tagged::session))).await
}

pub(super) async fn fetch(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    let call = async |who, asked: FetchRequest| api.service.fetch(&who, asked).await;
    api.serve(request, call, |media, asked, served| etag::answer(media, asked, served.map(Tagged::page))).await
}

pub(super) async fn digest(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    let call = async |who, asked: DigestRequest| api.service.digest(&who, asked).await;
    api.serve(request, call, |media, asked, served| etag::answer(media, asked, served.map(Tagged::digest))).await
}

pub(super) async fn snapshot(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    let call = async |who, asked: SnapshotRequest| api.service.snapshot(&who, asked).await;
    api.serve(request, call, |media, _, served| answer(media, served)).await
}

pub(super) async fn upload(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    let call = async |who, batch: UploadBatch| Ok(api.service.upload(&who, batch).await);
    api.serve(request, call, |media, _, served| upload_answer(media, served)).await
}

impl Api {
    /// Who asks, what is asked, then the call, and the answer in the asker's form. While the answer is on its way its user
    /// still has a share of the room, and nobody else has less.
    async fn serve<Q: DeserializeOwned, A>(
        &self,
        request: Request<Body>,
        call: impl AsyncFnOnce(Principal, Q) -> Result<A, Fault>,
        answer: impl FnOnce(Media, &HeaderMap, Result<A, Refusal>) -> Response,
    ) -> Response {
        let (Parts { headers, .. }, body) = request.into_parts();
        let bounds = BodyBounds { bytes_max: self.body_bytes_max(), within: self.settings().body_within };
        let form = call_form(&headers);
        // JSON, if the form is what is wrong.
        let media = *form.as_ref().unwrap_or(&Media::Json);
        let Admitted { principal, place, share } =
            match self.admit(&headers).await.and_then(|admitted| form.map(|_| admitted)) {
                Ok(admitted) => admitted,
                Err(refusal) => {
                    body::drain(body.into_data_stream(), bounds).await;
                    return answer(media, &headers, Err(refusal));
                }
            };
        let served = match body::receive(&headers, body, bounds).await {
            Ok(asked) => call(principal, asked).await.map_err(Refusal::from),
            Err(refusal) => Err(refusal),
        };
        let answered = answer(media, &headers, served);
        drop(place);
        held_until_sent(answered, share)
    }
}
