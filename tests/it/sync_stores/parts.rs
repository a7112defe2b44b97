//! Uploads in parts that do not come to an end.

use super::*;

/// Settings under which what may yet happen is waited for a moment only.
fn soon_settled() -> Settings {
    Settings { settle: Duration::from_millis(300), ..small_parts(MIB) }
}

fn is_abort(request: &Received) -> bool {
    request.method == "DELETE" && request.target.ends_with("uploadId=upload-1")
}

#[test]
fn an_upload_in_parts_that_fails_is_aborted_once_it_cannot_be_complete() {
    run(async {
        let complete = |behaviour: Behaviour| vec![("POST", Behaviour::good()), ("POST", behaviour)];
        let error =
            Answer::new(200).body("<?xml version=\"1.0\"?>\n<Error><Code>InternalError</Code></Error>");
        let wrong = Answer::new(200).header("ETag", &format!("\"{}\"", hex_md5(b"?")));
        let (now, later, never) = (Some(0), Some(300), None);
        let cases = [
            (vec![("PUT", Behaviour::good()), ("PUT", Behaviour::answers(500))], "Failed", now),
            (vec![("PUT", Behaviour::resets(Phase::AfterBody))], "Failed", now),
            (vec![("PUT", Behaviour::answers(wrong))], "Failed", now),
            (vec![("PUT", Behaviour::answers(403))], "Denied", now),
            (vec![("POST", Behaviour::resets(Phase::AfterBody))], "Failed", never),
            (complete(Behaviour::answers(error)), "Unknown", later),
            (complete(Behaviour::answers(Answer::error(412, "PreconditionFailed"))), "Changed", now),
            (complete(Behaviour::resets(Phase::AfterBody)), "Unknown", later),
            (complete(Behaviour::answers(504)), "Unknown", later),
            // Nothing is put together here: what is read back is not there.
            (vec![], "Unfinished", never),
        ];
        for (behaviours, expected, aborted) in cases {
            let (a, b) = misbehaving_pair(&noise(3 * MIB + 1)).await;
            let stores = stores(&[&a, &b], soon_settled());
            for (method, behaviour) in &behaviours {
                b.will_once_on(method, behaviour.clone());
            }
            let error = copy(&stores, "k", &a, &b, &open()).await.unwrap_err();
            let ended = Instant::now();
            assert!(format!("{error:?}").starts_with(expected), "{behaviours:?}: {error:?}");
            if let Some(after) = aborted {
                b.wait_for_request("the abort", is_abort).await;
                assert!(ended.elapsed() >= Duration::from_millis(after), "{behaviours:?}");
            }
            // Whatever is to come has come by then.
            stores.end(Duration::from_secs(5)).await;
            assert_eq!(
                b.requests().iter().filter(|request| is_abort(request)).count() > 0,
                aborted.is_some()
            );
        }
    });
}

#[test]
fn an_upload_in_parts_that_nobody_waits_for_any_more_is_aborted() {
    run(async {
        let hangs = || Behaviour::hangs(Phase::AfterBody);
        for behaviours in [
            vec![("POST", hangs())],
            vec![("PUT", Behaviour::good()), ("PUT", hangs())],
            vec![("POST", Behaviour::good()), ("POST", hangs())],
        ] {
            let (a, b) = misbehaving_pair(&noise(3 * MIB + 1)).await;
            let stores = Arc::new(stores(&[&a, &b], soon_settled()));
            let hanging = behaviours.len();
            for (method, behaviour) in &behaviours {
                b.will_once_on(method, behaviour.clone());
            }
            let method = behaviours[0].0;
            let requests = |b: &Misbehaving| {
                let complete = |r: &&Received| r.method == method && r.is_complete();
                b.requests().iter().filter(complete).count()
            };
            let (held, gate) = (held(&stores, &a, "k").await, open());
            let (from, to, key) = (a.url(), b.url(), object("k"));
            let mut copy =
                Box::pin(stores.copy(&key, (&from, &held), (&to, &State::Absent, just_now()), &gate));
            let reached = async {
                while requests(&b) < hanging {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::select! {
                outcome = &mut copy => panic!("{outcome:?}"),
                () = soon("what hangs", reached) => {}
            }
            drop(copy);
            b.release();
            b.wait_for_request("the abort", is_abort).await;
        }
    });
}

#[test]
fn an_abort_is_tried_again_before_the_process_ends() {
    run(async {
        let (a, b) = misbehaving_pair(&noise(3 * MIB + 1)).await;
        let stores = stores(&[&a, &b], soon_settled());
        b.will_once_on("DELETE", Behaviour::answers(503));
        let error = copy(&stores, "k", &a, &b, &closed()).await.unwrap_err();
        assert!(matches!(&error, StoreError::Changed(why) if why.contains("called off")), "{error:?}");
        b.wait_for_request("the abort", |request| is_abort(request) && request.answered == 503).await;
        stores.end(Duration::from_secs(5)).await;
        let aborts: Vec<u16> =
            b.requests().iter().filter(|request| is_abort(request)).map(|request| request.answered).collect();
        assert_eq!(aborts, [503, 204]);
    });
}
