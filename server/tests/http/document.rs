//! What the server says of itself is so: the OpenAPI document against real answers, and `docs/http.md` against a real server.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use jsonschema::Validator;
use serde_json::{Value, json};
use sqlx_core::connection::Connection;
use sqlx_core::executor::Executor;
use sqlx_postgres::PgConnection;
use synchrotron_core::model::{AudienceKey, UserId};
use synchrotron_core::network::suite::NetworkFixture;
use synchrotron_http::routes;
use tokio::process::Command;

use crate::api::{Api, session_request, token};
use crate::forms::json_of;

const DOCS: &str = include_str!("../../../docs/http.md");
const JSON: (&str, &str) = ("content-type", routes::JSON);

/// The document, with references from anywhere in it.
fn validator(document: &Value, schema: Value) -> Validator {
    let mut whole = schema;
    whole["components"] = document["components"].clone();
    jsonschema::draft202012::new(&whole).expect("a schema")
}

fn check(document: &Value, path: &str, place: &str, message: &Value) {
    let operation = document["paths"][path].as_object().expect(path).values().next().expect("a method").clone();
    let schema = operation.pointer(place).unwrap_or_else(|| panic!("{path} has no {place}")).clone();
    let validator = validator(document, schema);
    let wrong: Vec<String> = validator.iter_errors(message).map(|error| error.to_string()).collect();
    assert!(wrong.is_empty(), "{path} {place}: {wrong:?} in {message}");
    // A schema that takes anything checks nothing.
    assert!(!validator.is_valid(&json!({ "ok": { "strange": 1 }, "client_id": 7 })), "{path} {place}");
}

const ASKED: &str = "/requestBody/content/application~1json/schema";
const ANSWERED: &str = "/responses/200/content/application~1json/schema";

#[tokio::test]
async fn requests_and_answers_are_what_the_document_says() {
    let api = Api::start().await;
    let alice = UserId::new("alice").expect("ok");
    for key in ["user:alice", "project:1"] {
        api.allow(&alice, &AudienceKey::new(key).expect("ok")).await;
    }
    let document =
        json_of(api.client.get(format!("{}{}", api.url, routes::OPENAPI)).send().await.expect("served")).await;
    assert_eq!(document["openapi"], "3.1.0");
    let client_id = session_request().client_id;
    let ask = async |path: &str, asked: Value| {
        check(&document, path, ASKED, &asked);
        let answered = json_of(api.send(path, &[JSON], asked.to_string()).await).await;
        check(&document, path, ANSWERED, &answered);
        answered
    };
    let session = ask(routes::SESSION, json!({ "client_id": client_id })).await;
    let (epoch, now_ms) = (session["ok"]["epoch"].clone(), session["ok"]["server_time_ms"].as_i64().expect("a time"));
    let clock = (now_ms << 16).to_string();
    let note = |values: Value| {
        let id = uuid::Uuid::now_v7();
        json!({ "batch_id": uuid::Uuid::now_v7(), "client_id": client_id, "epoch": epoch, "basis": {}, "records": [{
            "id": id, "clock": clock, "body": { "action": { "tag": "write_v1", "args": "gA==" } },
            "rows": [{ "sequence": 0, "table": "notes", "row_id": id, "audience_key": "user:alice",
                "effect": { "INSERT": values } }],
        }] })
    };
    let accepted = ask(routes::UPLOAD, note(json!({ "owner": "alice", "body": "…" }))).await;
    assert!(accepted["ok"]["accepted"]["ids"].is_object(), "{accepted}");
    let rejected =
        ask(routes::UPLOAD, note(json!({ "owner": "alice", "nonsense": { "integer": "9007199254740993" } }))).await;
    assert_eq!(rejected["ok"]["rejected"]["kind"], "unknown_column", "{rejected}");
    let page = ask(routes::FETCH, json!({ "client_id": client_id, "epoch": epoch, "cursors": {} })).await;
    assert_eq!(page["ok"]["records"][0]["record"]["clock"], clock, "{page}");
    let audiences = json!(["project:1", "user:alice"]);
    let asked = json!({ "client_id": client_id, "epoch": epoch, "audiences": audiences, "ids": [], "resume": null });
    let chunk = ask(routes::SNAPSHOT, asked).await;
    assert_eq!(chunk["ok"]["rows"].as_array().map(Vec::len), Some(1));
    let digests = ask(routes::DIGEST, json!({ "client_id": client_id, "epoch": epoch, "audiences": audiences })).await;
    assert_eq!(digests["ok"]["audiences"]["user:alice"]["rows"], 1);
    let polled = json_of(api.get(routes::POLL, &[]).await).await;
    check(&document, routes::POLL, ANSWERED, &polled);
    let refused = json_of(api.send(routes::FETCH, &[JSON], "{}").await).await;
    let fault = document["components"]["responses"]["Fault"]["content"]["application/json"]["schema"].clone();
    assert!(validator(&document, fault).is_valid(&refused), "{refused}");
}

/// Whatever the server answers is in the document, and the document has nothing else.
#[tokio::test]
async fn every_route_is_in_the_document_and_every_path_of_it_is_served() {
    let api = Api::start().await;
    let document = json_of(api.get(routes::OPENAPI, &[]).await).await;
    let paths: BTreeSet<&str> = document["paths"].as_object().expect("paths").keys().map(String::as_str).collect();
    let routed = [
        routes::SESSION,
        routes::FETCH,
        routes::UPLOAD,
        routes::SNAPSHOT,
        routes::DIGEST,
        routes::EVENTS,
        routes::POLL,
        routes::OPENAPI,
        routes::HEALTHZ,
        routes::READYZ,
        routes::METRICS,
    ];
    assert_eq!(paths, BTreeSet::from(routed));
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            let method = method.to_uppercase().parse().expect("a method");
            let response = api.client.request(method, format!("{}{path}", api.url)).send().await.expect("an answer");
            assert!(![404, 405].contains(&response.status().as_u16()), "{path}");
        }
        assert!(DOCS.contains(path.as_str()), "docs/http.md says nothing of {path}");
    }
    let tag = api.get(routes::OPENAPI, &[]).await.headers()["etag"].clone();
    let again = api.get(routes::OPENAPI, &[("if-none-match", tag.to_str().expect("text"))]).await;
    assert_eq!(again.status().as_u16(), 304);
}

/// The commands of `docs/http.md`, with what each is said to print.
fn session_in_the_docs() -> (String, Vec<(String, String)>) {
    let mut blocks = DOCS.split("```").skip(1).step_by(2);
    let schema =
        blocks.next().and_then(|block| block.strip_prefix("sql\n")).expect("the schema comes first").to_owned();
    let mut steps: Vec<(String, String)> = Vec::new();
    for block in blocks {
        if let Some(command) = block.strip_prefix("sh\n") {
            steps.push((command.to_owned(), String::new()));
        } else if let Some(shown) = block.strip_prefix("text\n") {
            steps.last_mut().expect("a command before what it prints").1 = shown.to_owned();
        }
    }
    (schema, steps)
}

/// Whether each line that is shown is printed, in order; `…` stands for anything.
fn is_as_shown(printed: &str, shown: &str) -> bool {
    let mut rest = printed;
    shown.split(['…', '\n']).filter(|part| !part.trim().is_empty()).all(|part| {
        let found = rest.find(part.trim());
        if let Some(at) = found {
            rest = &rest[at + part.trim().len()..];
        }
        found.is_some()
    })
}

/// The whole session in one shell, as somebody types it.
#[tokio::test]
async fn the_session_in_the_docs_works_as_it_stands() {
    let curl = Command::new("curl").arg("--version").stdout(Stdio::null()).status().await;
    assert!(
        curl.is_ok_and(|status| status.success()),
        "curl is missing, and docs/http.md is written for it: install curl"
    );
    let api = Api::start().await;
    let (schema, steps) = session_in_the_docs();
    let mut connection = PgConnection::connect(&api.database).await.expect("connects");
    connection.execute(sqlx_core::sql_str::AssertSqlSafe(schema)).await.expect("the documented rows");
    assert!(steps.len() >= 8, "{steps:?}");
    let marker = "-- step --";
    let script: String = steps.iter().map(|(command, _)| format!("{command}\nprintf '\\n{marker}\\n'\n")).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let running = Command::new("sh")
        .current_dir(folder.path())
        .args(["-eu", "-c", &script])
        .env("SERVER", &api.url)
        .env("TOKEN", token("alice", 3_600))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(60), running).await.expect("in time").expect("runs");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {printed}{}", output.status, String::from_utf8_lossy(&output.stderr));
    for ((command, shown), printed) in steps.iter().zip(printed.split(marker)) {
        assert!(is_as_shown(printed, shown), "{command}\nprinted\n{printed}\nand not\n{shown}");
    }
}
