//! The condition of a change, in the form that its backend understands.
//!
//! S3 has an ETag in quotes in `If-Match`. Ceph's gateway (16) compares the header of a PUT, quotes and all, with an ETag
//! that has none: what is true fails. Others implement no conditions. So a form that fails although what it says is true
//! is followed by the next one, and the form by which the change was done is kept for a while. Without a form the backend
//! is asked right before the change.

use http::StatusCode;
use pingora_http::RequestHeader;

use super::{
    S3Stores, request,
    site::{Reply, Site},
};
use crate::{journal::Object, sync::State, upstream::Cause};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Quoted,
    /// The ETag alone.
    Bare,
    None,
}

/// That a backend still holds what it was seen to hold.
pub struct Condition<'a> {
    site: &'a Site,
    over: &'a State,
    form: Form,
    first: Form,
}

impl<'a> Condition<'a> {
    pub fn new(site: &'a Site, over: &'a State) -> Condition<'a> {
        let form = site.form();
        Condition { site, over, form, first: form }
    }

    pub fn set(&self, head: &mut RequestHeader) -> Result<(), Cause> {
        match (self.over, self.form) {
            (_, Form::None) => Ok(()),
            (State::Absent, _) => request::set(head, "if-none-match", "*"),
            (State::Present(held), Form::Quoted) => {
                request::set(head, "if-match", request::quoted(&held.etag))
            }
            (State::Present(held), Form::Bare) => request::set(head, "if-match", &held.etag),
            (State::Unknown(_) | State::Refused(_) | State::Denied(_), _) => Ok(()),
        }
    }

    /// Whether requests say it.
    pub fn is_sent(&self) -> bool {
        self.form != Form::None
    }

    /// Whether an answer to the change asks for another form: then the change is to be tried once more with that.
    pub async fn is_misunderstood(&mut self, stores: &S3Stores, object: &Object, reply: &Reply) -> bool {
        let next = match (self.form, self.over) {
            (Form::None, _) => return false,
            (Form::Quoted, State::Present(_)) if !reply.is_not_implemented() => Form::Bare,
            _ => Form::None,
        };
        // That there is nothing is said in one way, which is understood: something was there, if it is gone again by now.
        let failed =
            reply.status == StatusCode::PRECONDITION_FAILED && matches!(self.over, State::Present(_));
        let is_wrong = reply.is_not_implemented()
            // What is no ETag to it without quotes.
            || (self.form == Form::Bare && reply.status == StatusCode::BAD_REQUEST)
            || (failed && stores.still(self.site, object, self.over).await.is_ok());
        if is_wrong {
            self.form = next;
        }
        is_wrong
    }

    /// The change was done.
    pub fn held(&self) {
        if self.form != self.first {
            self.site.keep_form(self.form);
        }
    }
}
