//! A record's fields as the parameters of a statement: all as text, which the database reads as it reads a literal.

use std::error::Error;

use serde_json::{Map, Value};
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};

use crate::{
    config::{Insert, Piece},
    synclog::spool::Stored,
};

/// The text of one parameter, of whatever type it is there.
#[derive(Debug, PartialEq, Eq)]
pub struct Text(String);

impl ToSql for Text {
    fn to_sql(&self, _: &Type, out: &mut bytes::BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// The parameters for a record. What it lacks, as `subresource`, is empty.
pub fn parameters(insert: &Insert, stored: &Stored) -> serde_json::Result<Vec<Text>> {
    let record: Map<String, Value> = serde_json::from_str(&stored.record)?;
    let text = |pieces: &Vec<Piece>| Text(pieces.iter().map(|piece| value(piece, stored, &record)).collect());
    Ok(insert.parameters.iter().map(text).collect())
}

fn value(piece: &Piece, stored: &Stored, record: &Map<String, Value>) -> String {
    match piece {
        Piece::Text(text) => text.clone(),
        Piece::Field("id") => stored.id.clone(),
        Piece::Field(name) => match record.get(*name) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_together_and_numbers_are_texts() {
        let pieces = vec![
            vec![Piece::Field("id")],
            vec![Piece::Text("a ".into()), Piece::Field("path"), Piece::Text("'".into())],
            vec![Piece::Field("content-length")],
            vec![Piece::Field("subresource")],
        ];
        let insert = Insert { sql: String::new(), parameters: pieces };
        let record = r#"{"path":"/b/'); DROP TABLE t; --","content-length":5000000000}"#.to_owned();
        let stored = Stored { id: "i".into(), record, end: 0 };
        let texts = ["i", "a /b/'); DROP TABLE t; --'", "5000000000", ""];
        assert_eq!(parameters(&insert, &stored).unwrap(), texts.map(|text| Text(text.into())));
        assert!(parameters(&insert, &Stored { record: "[]".into(), ..stored }).is_err());
    }
}
