//! For tests of single statements: a database of the tests' app that a service has been started on.

use sqlx_core::executor::Executor;
use sqlx_postgres::{PgPool, PgPoolOptions};
use synchrotron_core::model::TableName;

use crate::service::Service;
use crate::settings::Settings;

/// A database with one tracked table, `seats`, through one connection that has none of the service's settings.
pub(crate) async fn database(name: &str) -> (PgPool, Settings) {
    let postgres = synchrotron_testkit::postgres().await.expect("postgres");
    let url = postgres.create_database(name).await.expect("a database");
    let pool = PgPoolOptions::new().max_connections(1).connect(&url).await.expect("connects");
    pool.execute(include_str!("../tests/service/schema.sql")).await.expect("the schema");
    let tables = vec![TableName::new("seats").expect("a name")];
    let settings = Settings::new(url, tables, b"a secret of these tests".as_slice());
    Service::connect(&settings).await.expect("starts");
    (pool, settings)
}
