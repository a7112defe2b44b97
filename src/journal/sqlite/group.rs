//! Changes that are one transaction, and stay apart: what fails of one leaves the others as they are.
//!
//! Each has a savepoint of its own. Some failures (a full disk) end the whole transaction: then all have failed. Nobody is
//! told anything before the transaction is committed.

use std::time::Instant;

use tokio::sync::oneshot;

use super::{JournalError, index::Tables, open::told, thread::Safety};

/// A change that somebody waits for.
pub trait Change: Send {
    fn safety(&self) -> Safety;

    /// It must not begin later.
    fn deadline(&self) -> Instant;

    fn work(&mut self, tables: &Tables<'_>) -> rusqlite::Result<()>;

    /// It failed, and left nothing.
    fn fail(&mut self, error: &rusqlite::Error);

    /// Tells what the transaction has come to.
    fn end(self: Box<Self>, committed: Result<(), JournalError>);
}

/// [`Change`] by a function.
pub struct Work<T, F> {
    safety: Safety,
    deadline: Instant,
    work: Option<F>,
    done: Option<Result<T, JournalError>>,
    answer: oneshot::Sender<Result<T, JournalError>>,
}

impl<T, F: FnOnce(&Tables<'_>) -> rusqlite::Result<T>> Work<T, F> {
    pub fn new(
        safety: Safety,
        deadline: Instant,
        work: F,
        answer: oneshot::Sender<Result<T, JournalError>>,
    ) -> Work<T, F> {
        Work { safety, deadline, work: Some(work), done: None, answer }
    }
}

impl<T: Send, F: FnOnce(&Tables<'_>) -> rusqlite::Result<T> + Send> Change for Work<T, F> {
    fn safety(&self) -> Safety {
        self.safety
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn work(&mut self, tables: &Tables<'_>) -> rusqlite::Result<()> {
        let Some(work) = self.work.take() else { return Ok(()) };
        self.done = Some(Ok(work(tables)?));
        Ok(())
    }

    fn fail(&mut self, error: &rusqlite::Error) {
        self.done = Some(Err(told(error)));
    }

    fn end(self: Box<Self>, committed: Result<(), JournalError>) {
        let done = match (self.done, committed) {
            (Some(Err(error)), _) | (_, Err(error)) => Err(error),
            (Some(done), Ok(())) => done,
            (None, Ok(())) => Err(JournalError::Unavailable("it was not done".to_owned())),
        };
        // Whoever asked may have gone.
        self.answer.send(done).ok();
    }
}

/// Does what a group asks for. `Err` = all of it has failed.
pub fn work(tables: &Tables<'_>, group: &mut [Box<dyn Change>]) -> rusqlite::Result<()> {
    if let [only] = group {
        return only.work(tables);
    }
    for change in group {
        tables.prepare_cached("SAVEPOINT change")?.execute([])?;
        if let Err(error) = change.work(tables) {
            if tables.is_autocommit() {
                return Err(error);
            }
            tables.prepare_cached("ROLLBACK TO change")?.execute([])?;
            tables.forget();
            change.fail(&error);
        }
        tables.prepare_cached("RELEASE change")?.execute([])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rusqlite::Connection;

    use super::{super::index::Index, *};

    fn insert(number: i64) -> (Box<dyn Change>, oneshot::Receiver<Result<i64, JournalError>>) {
        let (answer, answered) = oneshot::channel();
        let insert = move |tables: &Tables<'_>| {
            tables.execute("INSERT INTO numbers VALUES (?1)", [number])?;
            // What was done before it failed goes, too.
            tables.execute("INSERT INTO small VALUES (?1)", [number])?;
            Ok(number)
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        (Box::new(Work::new(Safety::Disk, deadline, insert, answer)), answered)
    }

    #[test]
    fn what_fails_of_one_leaves_the_others_as_they_are_and_a_commit_is_of_all() {
        for is_committed in [true, false] {
            let mut connection = Connection::open_in_memory().unwrap();
            let tables = "CREATE TABLE numbers (number); CREATE TABLE small (number CHECK (number < 10))";
            connection.execute_batch(tables).unwrap();
            let (mut group, answers): (Vec<_>, Vec<_>) = [1, 20, 3].map(insert).into_iter().unzip();
            let transaction = connection.transaction().unwrap();
            work(&Tables::of(&transaction, &mut Index::default()), &mut group).unwrap();
            let committed = if is_committed { transaction.commit() } else { transaction.rollback() };
            let committed = match (committed, is_committed) {
                (Ok(()), false) => Err(JournalError::Unavailable("no".into())),
                (committed, _) => committed.map_err(|error| told(&error)),
            };
            group.into_iter().for_each(|change| change.end(committed.clone()));
            let told: Vec<Option<i64>> =
                answers.into_iter().map(|mut answer| answer.try_recv().unwrap().ok()).collect();
            let (expected, rows) = match is_committed {
                true => (vec![Some(1), None, Some(3)], vec![1, 3]),
                false => (vec![None; 3], Vec::new()),
            };
            assert_eq!(told, expected);
            let mut statement = connection.prepare("SELECT number FROM numbers ORDER BY number").unwrap();
            let found = statement.query_map([], |row| row.get(0)).unwrap();
            assert_eq!(found.collect::<rusqlite::Result<Vec<i64>>>().unwrap(), rows);
        }
    }
}
