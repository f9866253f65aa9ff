//! Scripts: runs of several users that Postgres applies one after the other, in one statement.
//!
//! Place in the journey: between [`super::runs`] and Postgres. One way there and back for each user would cost more than
//! what is done there.
//!
//! # Invariants
//! - Runs are applied in their order, each as its user: under that user's policies, as if each had come alone.
//! - A script goes well when every effect matches a row of its audience. Anything else is found out at a slower
//!   [`Pace`](super::Pace): nothing of the script stays, and nobody is refused for it.

use std::collections::{BTreeMap, HashMap};

use sqlx_core::row::Row;
use synchrotron_core::model::UserId;

use super::runs::{Run, Step};
use super::statements::{Statement, Taken};
use super::{MaterializeError, Materializer, Refused};
use crate::pg::{Acting, query};

/// So many effects in one script are as good as any more.
pub(super) const SCRIPT_MAX: usize = 1_000;

/// Runs that wait to be applied; their order is that of the log.
#[derive(Debug)]
pub(super) struct Script<'b> {
    runs: Vec<(&'b UserId, Run<'b>)>,
    effects: usize,
}

impl<'b> Script<'b> {
    pub(super) const fn new() -> Self {
        Self { runs: Vec::new(), effects: 0 }
    }

    pub(super) fn add(&mut self, user_id: &'b UserId, run: Run<'b>) {
        self.effects += run.steps.len();
        self.runs.push((user_id, run));
    }

    pub(super) const fn is_full(&self) -> bool {
        self.effects >= SCRIPT_MAX
    }
}

/// A script as the parameters of its statement.
#[derive(Debug, Default)]
pub(super) struct Parameters<'b> {
    pub(super) statements: Vec<String>,
    pub(super) users: Vec<&'b str>,
    pub(super) chosen: Vec<i32>,
    pub(super) widths: Vec<i32>,
    pub(super) arguments: Vec<String>,
    numbers: BTreeMap<String, i32>,
}

impl<'b> Parameters<'b> {
    /// One more run, as this user.
    pub(super) fn add(&mut self, user_id: &'b UserId, statement: Statement) {
        let count = |items: usize| i32::try_from(items).expect("BUG: a script is bounded");
        let (sql, parameters) = statement.into_parts();
        let next = count(self.numbers.len() + 1);
        let number = *self.numbers.entry(sql).or_insert_with_key(|sql| {
            self.statements.push(sql.clone());
            next
        });
        self.users.push(user_id.as_str());
        self.chosen.push(number);
        self.widths.push(count(parameters.len()));
        self.arguments.extend(parameters.iter().map(|values| array_text(values)));
    }
}

impl Materializer<'_> {
    /// Applies the runs that wait.
    pub(super) async fn run_script(&mut self) -> Result<(), Refused> {
        let script = std::mem::replace(&mut self.script, Script::new());
        let Some((_, first)) = script.runs.first() else { return Ok(()) };
        let first = first.steps[0];
        let blamed = |error| first.blame(MaterializeError::from(error).too_fast());
        let mut parameters = Parameters::default();
        for (user_id, run) in &script.runs {
            let table = self.table(&run.first().row_key()).map_err(|error| first.blame(error))?;
            let statement = run.statement(table, Taken::Fails);
            // Run n of the answer is the nth of the script.
            parameters.add(user_id, statement.expect("BUG: only corrections do nothing, and they are late"));
        }
        self.actor.act_as(Acting::Server).await.map_err(blamed)?;
        let running = query(
            "/* materialize.script */ SELECT run, id, audience_key \
             FROM synchrotron.run_script($1, $2, $3, $4, $5, $6)",
        );
        let matched = running
            .bind(self.actor.app_role())
            .bind(&parameters.statements)
            .bind(&parameters.users)
            .bind(&parameters.chosen)
            .bind(&parameters.widths)
            .bind(&parameters.arguments)
            .fetch_all(&mut *self.actor.conn)
            .await
            .map_err(blamed)?;
        self.actor.was_left_as_user();
        let mut audiences: HashMap<(i32, &str), Option<&str>> = HashMap::with_capacity(matched.len());
        for row in &matched {
            let read = || Ok::<_, sqlx_core::Error>(((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?));
            audiences.extend([read().map_err(blamed)?]);
        }
        for ((_, run), number) in script.runs.iter().zip(1..) {
            let goes_well = |step: &&Step<'_>| {
                audiences.get(&(number, step.patch.row_id.as_str())) == Some(&Some(step.patch.audience_key.as_str()))
            };
            if let Some(step) = run.steps.iter().find(|step| !goes_well(step)) {
                return Err(step.blame(MaterializeError::TooFast));
            }
        }
        Ok(())
    }
}

/// An array as Postgres reads it from text.
fn array_text(values: &[Option<String>]) -> String {
    let mut text = String::from("{");
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        match value {
            None => text.push_str("NULL"),
            Some(value) => {
                text.push('"');
                for character in value.chars() {
                    if matches!(character, '"' | '\\') {
                        text.push('\\');
                    }
                    text.push(character);
                }
                text.push('"');
            }
        }
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use sqlx_core::connection::Connection;
    use sqlx_core::query_scalar::query_scalar;
    use sqlx_postgres::{PgConnection, PgDatabaseError, Postgres};

    use super::*;
    use crate::fixture;

    async fn run(conn: &mut PgConnection, statements: &[String], argument: &str) -> Result<(), sqlx_core::Error> {
        let mut tx = conn.begin().await?;
        query("SELECT run, id FROM synchrotron.run_script('synchrotron_user', $1, ARRAY['alice'], ARRAY[1], ARRAY[1], $2)")
            .bind(statements)
            .bind([argument].as_slice())
            .fetch_all(&mut *tx)
            .await?;
        tx.commit().await
    }

    #[tokio::test]
    async fn a_connection_keeps_so_many_statements_and_no_more() {
        let mut conn = fixture::database("script").await.0.acquire().await.expect("connects");
        for number in 0..250 {
            // Statements of a transaction that is rolled back are prepared all the same, and are not forgotten.
            let argument = if number % 3 == 0 { "no array" } else { "{x}" };
            let statement = format!("SELECT 's{number}', v FROM unnest($1::text[]) v");
            let ran = run(&mut conn, &[statement], argument).await;
            assert_eq!(ran.is_err(), number % 3 == 0, "{ran:?}");
        }
        let counted =
            query_scalar::<Postgres, i64>("SELECT count(*) FROM pg_prepared_statements WHERE name ~ '^synchrotron_'");
        let kept = counted.fetch_one(&mut *conn).await.expect("counts");
        assert!((1..=250 * 2 / 3).contains(&kept), "{kept}");
    }

    #[tokio::test]
    async fn what_fails_tells_no_values() {
        let mut conn = fixture::database("script").await.0.acquire().await.expect("connects");
        let statement = "SELECT v, (v::integer)::text FROM unnest($1::text[]) v".to_owned();
        let Err(sqlx_core::Error::Database(error)) = run(&mut conn, &[statement], "{secret}").await else {
            panic!("a text became an integer")
        };
        let error = error.downcast_ref::<PgDatabaseError>();
        assert_eq!(error.code(), "22P02");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }

    #[test]
    fn arrays_are_written_as_postgres_reads_them() {
        let values = ["", "NULL", "a,b", "{c}", r#"say "d"\"#, " e\n"].map(|value| Some(value.to_owned()));
        let all = [values.as_slice(), &[None]].concat();
        assert_eq!(array_text(&all), "{\"\",\"NULL\",\"a,b\",\"{c}\",\"say \\\"d\\\"\\\\\",\" e\n\",NULL}");
        assert_eq!(array_text(&[]), "{}");
    }
}
