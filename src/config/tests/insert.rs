//! The translation of templates: by table, and that no text makes it panic or lets a field escape its parameter.

use proptest::prelude::*;

use super::*;

fn field(name: &'static str) -> Vec<Piece> {
    vec![Piece::Field(name)]
}

fn text(text: &str) -> Piece {
    Piece::Text(text.to_owned())
}

#[test]
fn fields_become_parameters_with_their_quotes() {
    let cases = [
        ("INSERT INTO t VALUES ('{{.path}}')", "INSERT INTO t VALUES ($1)", vec![field("path")]),
        (
            "insert into t values ('new', '{{.ts}}'::timestamp, {{ .content-length }});\n",
            "insert into t values ('new', $1::timestamp, $2)\n",
            vec![field("ts"), field("content-length")],
        ),
        (
            "INSERT INTO t VALUES ('x''{{.path}} y{{.reqID}}')",
            "INSERT INTO t VALUES ($1)",
            vec![vec![text("x'"), Piece::Field("path"), text(" y"), Piece::Field("reqID")]],
        ),
        (
            "-- it's a comment; really\nINSERT /* a /* nested */ ' */ INTO \"it''s\"\"; t\" (a) VALUES \
             ($$ it's; $$, $x$ $$ $x$, E'\\'', '''', '{{.id}}') -- end",
            "-- it's a comment; really\nINSERT /* a /* nested */ ' */ INTO \"it''s\"\"; t\" (a) VALUES \
             ($$ it's; $$, $x$ $$ $x$, E'\\'', '''', $1) -- end",
            vec![field("id")],
        ),
        ("(SELECT a$b({{.key}},'{{.key}}')) ; ;", "(SELECT a$b($1,$2))  ", vec![field("key"), field("key")]),
    ];
    for (template, sql, parameters) in cases {
        assert_eq!(translate(template), Ok(Insert { sql: sql.to_owned(), parameters }), "{template}");
    }
}

#[test]
fn the_originals_example_is_translated() {
    let template = "INSERT INTO tablename(path, successhost, failedhost, ts,\n method, useragent, error)\n\
        VALUES ('new','{{.path}}','{{.successhost}}','{{.failedhost}}',\n'{{.ts}}'::timestamp, \
        '{{.method}}','{{.useragent}}','{{.error}}');\n";
    let insert = translate(template).unwrap();
    assert!(insert.sql.ends_with("VALUES ('new',$1,$2,$3,\n$4::timestamp, $5,$6,$7)\n"), "{}", insert.sql);
    assert_eq!(insert.parameters.len(), 7);
}

#[test]
fn the_default_statement_names_every_field_once() {
    let insert = translate(DEFAULT).unwrap();
    for name in FIELDS {
        assert_eq!(insert.parameters.iter().filter(|pieces| **pieces == field(name)).count(), 1, "{name}");
    }
    assert_eq!(insert.parameters.len(), FIELDS.len());
}

#[test]
fn what_cannot_be_translated_is_told_with_its_line() {
    let cases = [
        (
            "INSERT INTO t\nVALUES ('{{.path')",
            "line 2 of the template: \"{{\" without \"}}\"; write {{.path}}",
        ),
        (
            "INSERT INTO t VALUES ('{{.pth}}')",
            "\"pth\" is no field; did you mean \"path\"?; there are id, method",
        ),
        ("INSERT INTO t VALUES ('{{.Path}}')", "did you mean \"path\"?"),
        (
            "INSERT INTO t {{if .path}}x{{end}}",
            "\"if .path\" is no field; only fields are filled in, such as {{.path}}",
        ),
        ("INSERT INTO t VALUES ('{{- .path -}}')", "\"- .path -\" is no field"),
        ("INSERT INTO t VALUES ('{{.path | printf}}')", "is no field"),
        ("INSERT INTO t VALUES ('{{}}')", "\"\" is no field"),
        ("INSERT INTO t VALUES ('{{.}}')", "\"\" is no field"),
        (
            "INSERT INTO log_{{.method}} VALUES (1)",
            "a field stands in a name, which can hold no value; write '{{.path}}'",
        ),
        ("INSERT INTO t VALUES ({{.status}}0)", "a field stands in a name"),
        ("INSERT INTO t VALUES ({{.status}}{{.status}})", "a field stands in a name"),
        ("INSERT INTO \"{{.method}}\" VALUES (1)", "a field stands in a quoted name"),
        ("INSERT INTO t\n-- {{.path}}\nVALUES (1)", "line 2 of the template: a field stands in a comment"),
        ("INSERT INTO t /* {{.path}} */ VALUES (1)", "a field stands in a comment"),
        ("INSERT INTO t VALUES (E'{{.path}}')", "a field stands in a literal with a prefix"),
        ("INSERT INTO t VALUES (U&'{{.path}}')", "a field stands in a literal with a prefix"),
        ("INSERT INTO t VALUES (date'{{.ts}}')", "a field stands in a literal with a prefix"),
        (
            "INSERT INTO t VALUES (timestamp '{{.ts}}')",
            "a field stands in a literal behind \"timestamp\", which takes constants only; write '{{.ts}}'::timestamp",
        ),
        (
            "INSERT INTO t VALUES (time with time zone\n'{{.ts}}')",
            "a field stands in a literal behind \"zone\"",
        ),
        ("INSERT INTO t VALUES ('a'\n'{{.path}}')", "a literal with a field stands beside another one"),
        ("INSERT INTO t VALUES ('{{.path}}'\n'a')", "a literal with a field stands beside another one"),
        ("INSERT INTO t VALUES ($$ {{.path}} $$)", "a field stands in a literal between dollars"),
        ("INSERT INTO t VALUES ($1, '{{.path}}')", "\"$\" and a number; write {{.path}} where a value goes"),
        ("INSERT INTO t\nVALUES ('{{.path}})", "line 2 of the template: a literal does not end"),
        ("INSERT INTO t VALUES (E'\\'{{.path}}", "a literal"),
        ("INSERT INTO t VALUES (E'\\", "a literal does not end"),
        ("INSERT INTO \"t", "a quoted name does not end"),
        ("INSERT /* /* */", "a comment does not end"),
        ("INSERT $x$ $y$", "a literal between dollars does not end"),
        (
            "INSERT INTO t VALUES ('{{.path}}');\nDROP TABLE t",
            "line 2 of the template: more than one statement; write one",
        ),
        ("INSERT INTO t VALUES ('{{.path}}'); /* x */ {{.path}}", "more than one statement"),
        ("DELETE FROM t WHERE path = '{{.path}}'", "\"DELETE\" begins no insert; write INSERT"),
        ("commit", "\"commit\" begins no insert"),
        ("'{{.path}}'", "there is no statement; write INSERT"),
        (" -- nothing\n;", "there is no statement; write INSERT"),
        ("INSERT INTO t VALUES ('new')", "every record would be the same row"),
        ("INSERT INTO t VALUES (\0'{{.path}}')", "a NUL character"),
    ];
    for (template, expected) in cases {
        let message = translate(template).expect_err(template).message(true);
        assert!(message.contains(expected), "{template}: {message}");
    }
}

#[test]
fn a_template_from_the_environment_is_not_repeated() {
    for template in ["hunter2 x", "INSERT '{{.hunter2}}'", "INSERT '{{hunter2}}'"] {
        let message = translate(template).unwrap_err().message(false);
        assert!(!message.contains("hunter2"), "{message}");
    }
}

proptest! {
    #[test]
    fn any_text_is_translated_or_refused(
        any in "(?s).{0,60}",
        shaped in "INSERT ('|\"|;|--|\n|/\\*|\\*/|\\$|\\$x\\$|\\{\\{|\\}\\}|\\{\\{\\.path\\}\\}|E'|\\\\|a|1|ż| ){0,20}",
    ) {
        for template in [any, shaped] {
            if let Ok(insert) = translate(&template) {
                prop_assert!(!insert.sql.contains("{{.path}}"), "{}", insert.sql);
                for number in 1..=insert.parameters.len() {
                    let parameter = format!("${}", number);
                    prop_assert!(insert.sql.contains(&parameter));
                }
            }
        }
    }
}
