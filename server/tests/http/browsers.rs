//! Browsers: those of origins that are named may call, and see what they need of an answer.

use reqwest::{Method, StatusCode};
use synchrotron_core::wire;
use synchrotron_http::routes;

use crate::api::{Api, session_request};

const APP: &str = "https://app.example";

async fn preflight(api: &Api, path: &str, origin: &str) -> reqwest::Response {
    let request = api.client.request(Method::OPTIONS, format!("{}{path}", api.url));
    let request = request.header("origin", origin).header("access-control-request-method", "POST");
    let asked = "authorization,content-type,if-none-match,last-event-id";
    request.header("access-control-request-headers", asked).send().await.expect("an answer")
}

#[tokio::test]
async fn a_named_origin_may_call_and_another_may_not() {
    let api = Api::start_with(|settings| settings.http.cors_origins = vec![APP.to_owned()]).await;
    for path in [routes::SESSION, routes::UPLOAD, routes::EVENTS, routes::POLL] {
        let allowed = preflight(&api, path, APP).await;
        assert_eq!(allowed.status(), StatusCode::OK, "without a token: {path}");
        assert_eq!(allowed.headers()["access-control-allow-origin"], APP, "{path}");
        let headers = allowed.headers()["access-control-allow-headers"].to_str().expect("text");
        assert!(
            ["authorization", "content-type", "if-none-match", "last-event-id"]
                .iter()
                .all(|name| headers.contains(name))
        );
        assert!(allowed.headers().contains_key("access-control-max-age"));
        let strange = preflight(&api, path, "https://evil.example").await;
        assert!(!strange.headers().contains_key("access-control-allow-origin"), "{path}");
    }
    let body = wire::encode(&session_request());
    let answered = api.send(routes::SESSION, &[("origin", APP)], body.clone()).await;
    assert_eq!(answered.status(), StatusCode::OK);
    assert_eq!(answered.headers()["access-control-allow-origin"], APP);
    let seen = answered.headers()["access-control-expose-headers"].to_str().expect("text").to_lowercase();
    assert!(["etag", "retry-after", routes::SERVER_TIME_MS].iter().all(|name| seen.contains(name)), "{seen}");
    // A page must be able to read why it was refused.
    let refused = api.post(routes::SESSION, None, body).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn no_origin_may_by_default_and_all_may_if_all_are_named() {
    let none = Api::start().await;
    assert!(!preflight(&none, routes::SESSION, APP).await.headers().contains_key("access-control-allow-origin"));
    let all = Api::on(none.database.clone(), |settings| settings.http.cors_origins = vec!["*".to_owned()]).await;
    assert_eq!(preflight(&all, routes::SESSION, APP).await.headers()["access-control-allow-origin"], "*");
}
