//! Where a read goes on, and what it ends in: a pure rule over the answers of backends.
//!
//! A read goes on to the next backend, then to the next cluster, on transport failure, 5xx, 403 and 404 only; any
//! other answer is final: going on after a 412 would serve an old version. When nobody has the object it is `404`
//! only if at least one backend of **every** cluster asked said so: a backend that is down never turns into "no
//! such object". Else the most telling failure: transport and 5xx before 403 before 404.

use http::StatusCode;

/// What one backend's answer means for the search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// 404
    Absent,
    /// 403
    Denied,
    /// 5xx, or no answer at all.
    Broken,
    /// The search ends with this answer.
    Final,
}

impl Finding {
    pub fn of(status: StatusCode) -> Finding {
        match status {
            StatusCode::NOT_FOUND => Finding::Absent,
            StatusCode::FORBIDDEN => Finding::Denied,
            _ if status.is_server_error() => Finding::Broken,
            _ => Finding::Final,
        }
    }
}

/// The findings so far.
#[derive(Debug, Default)]
pub struct Search {
    /// For each cluster asked, whether one of its backends said 404.
    absent: Vec<bool>,
    most_telling: Option<Finding>,
}

impl Search {
    /// The next cluster is about to be asked.
    pub fn enter_cluster(&mut self) {
        self.absent.push(false);
    }

    /// Takes a finding that is not final; `true` if it is the most telling so far, so that its answer is to be
    /// kept.
    pub fn note(&mut self, finding: Finding) -> bool {
        if finding == Finding::Absent
            && let Some(absent) = self.absent.last_mut()
        {
            *absent = true;
        }
        let telling = self.most_telling.is_none_or(|known| finding > known);
        if telling {
            self.most_telling = Some(finding);
        }
        telling
    }

    /// Whether the object is known to be nowhere.
    pub fn is_absent(&self) -> bool {
        !self.absent.is_empty() && self.absent.iter().all(|absent| *absent)
    }
}

#[cfg(test)]
mod tests {
    use super::{Finding::*, *};

    /// Clusters with the findings of their backends -> (absent everywhere, most telling).
    fn search(clusters: &[&[Finding]]) -> (bool, Option<Finding>) {
        let mut search = Search::default();
        for findings in clusters {
            search.enter_cluster();
            for finding in *findings {
                search.note(*finding);
            }
        }
        (search.is_absent(), search.most_telling)
    }

    #[test]
    fn absent_only_if_every_cluster_said_so() {
        assert_eq!(search(&[&[Absent]]), (true, Some(Absent)));
        assert_eq!(search(&[&[Absent, Broken]]), (true, Some(Broken)));
        assert_eq!(search(&[&[Absent], &[Broken, Absent]]), (true, Some(Broken)));
        assert_eq!(search(&[&[Absent], &[Broken]]), (false, Some(Broken)));
        assert_eq!(search(&[&[Denied], &[Absent]]), (false, Some(Denied)));
        assert_eq!(search(&[&[Broken], &[Denied]]), (false, Some(Broken)));
        assert_eq!(search(&[&[], &[Absent]]), (false, Some(Absent)));
        assert_eq!(search(&[]), (false, None));
    }

    #[test]
    fn only_failures_404_and_403_let_a_read_go_on() {
        for (status, finding) in [
            (200, Final),
            (206, Final),
            (304, Final),
            (307, Final),
            (400, Final),
            (401, Final),
            (403, Denied),
            (404, Absent),
            (412, Final),
            (416, Final),
            (500, Broken),
            (503, Broken),
        ] {
            assert_eq!(Finding::of(StatusCode::from_u16(status).unwrap()), finding, "{status}");
        }
    }
}
