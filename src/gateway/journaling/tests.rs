use futures_util::FutureExt;
use http::HeaderMap;

use super::*;
use crate::{
    config::RegionConfig,
    journal::{
        Change, Enrolled, Journal,
        fixture::{self, Behind},
    },
    s3::request::classify,
    topology::{Topology, fixture as placed},
    upstream::Framing,
};

/// A PUT to an object in a region that asks for this.
fn put(consistency: Consistency) -> Route {
    let region = RegionConfig { consistency, ..placed::region("r", &[("c", 1.0)], &[]) };
    let config = placed::config(vec![placed::cluster("c", &["a", "b"])], vec![region]);
    let region = Topology::new(&config).regions[0].clone();
    let style = region.virtual_host_style;
    let request = classify(&Method::PUT, b"/b/k", &HeaderMap::new(), None, style).unwrap();
    Route { region, request, framing: Framing::Length(5), object_length: Some(5) }
}

/// When its request is dropped.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Dropped {
    /// Its intent waits for another batch to be through.
    InTheQueue,
    OnItsWay,
}

#[tokio::test]
async fn a_write_that_is_dropped_while_it_waits_for_its_intent_leaves_nothing() {
    for consistency in [Consistency::None, Consistency::Weak, Consistency::Strong] {
        for dropped in [Dropped::InTheQueue, Dropped::OnItsWay] {
            drop_in_the_middle(consistency, dropped).await;
        }
    }
}

/// The object has a record of an earlier process, so that every write to it waits, whatever its region asks for.
async fn drop_in_the_middle(consistency: Consistency, dropped: Dropped) {
    let of = format!("{consistency:?}, {dropped:?}");
    let behind = Arc::<Behind>::default();
    let mut earlier = fixture::intent("k", 1);
    earlier.id.gateway = behind.memory().enrol("host").await.unwrap();
    let gateway = Enrolled { number: earlier.id.gateway, name: "host".into() };
    let (id, object) = (earlier.id, earlier.object.clone());
    let record = Change::Diverged(Record::orphaned(earlier, 0));
    behind.memory().apply(&gateway, vec![record], Duration::ZERO).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let journaling = Arc::new(Journaling::with(behind.writer(folder.path()), 10));
    journaling.clone().start().await;
    assert!(journaling.writer.is_available() && journaling.overview.may_have_records(&object));

    let route = put(consistency);
    let writing = Writing::new(&route, &Method::PUT, "id", &route.region.clusters);
    behind.held.send_replace(true);
    match dropped {
        Dropped::InTheQueue => {
            let other = Intent { id: journaling.writer.next_id(), ..fixture::intent("other", 0) };
            assert!(journaling.writer.begin_soon(&[Arc::new(other)]));
            behind.until_came(1).await;
            assert!(journaling.begin(&writing).now_or_never().is_none(), "{of}: it did not wait");
        }
        Dropped::OnItsWay => tokio::select! {
            biased;
            _ = journaling.begin(&writing) => panic!("{of}: it did not wait"),
            () = behind.until_came(1) => {}
        },
    }
    behind.held.send_replace(false);
    // An intent that is left becomes a record.
    journaling.writer.leave(Duration::from_secs(30)).await;
    let case = behind.memory().show(&object).await.unwrap().unwrap();
    let records: Vec<_> = case.records.iter().map(Record::id).collect();
    assert_eq!((records, case.under_way), (vec![id], 0), "{of}");
}
