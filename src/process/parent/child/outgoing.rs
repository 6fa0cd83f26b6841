//! What the parent still has to write to a worker.

use super::inflight::Inflight;
use crate::process::link::{BEGUN, ParentLink};
use crate::process::wire::{Call, CallKind, ProtocolError, padded};

/// A long argument is written in parts, as the worker makes room. Nothing else is written until all of it is, so a call to exit
/// may have to wait.
#[derive(Default)]
pub(super) struct Outgoing {
    /// How many bytes of the last call's argument have been written; `None` if all have.
    partial: Option<usize>,
    /// The worker has to be told to exit, and has not been told yet.
    exit_due: bool,
}

impl Outgoing {
    pub(super) fn is_sending(&self) -> bool {
        self.partial.is_some()
    }

    /// `sent` of the `of` bytes of the last call's argument have been written.
    pub(super) fn has_written(&mut self, sent: usize, of: usize) {
        self.partial = (sent < padded(of)).then_some(sent);
    }

    /// Writes more of a long argument, if there is one.
    pub(super) fn send_more(&mut self, link: &mut ParentLink, inflight: &Inflight) -> Result<(), ProtocolError> {
        let (Some(sent), Some(job)) = (self.partial, inflight.last_task()) else { return Ok(()) };
        let argument = job.argument.as_slice();
        let mut sent = link.send_more(argument, sent)?;
        if sent < padded(argument.len()) {
            link.want_room();
            // Room that was made between the two steps has not been announced.
            sent = link.send_more(argument, sent)?;
        }
        self.has_written(sent, argument.len());
        link.wake_worker();
        Ok(())
    }

    /// The worker has to be told to exit.
    pub(super) fn exit(&mut self, link: &mut ParentLink) -> Result<(), ProtocolError> {
        self.exit_due = true;
        self.send_exit(link)
    }

    /// Tells the worker to exit, if that is due and there is room.
    pub(super) fn send_exit(&mut self, link: &mut ParentLink) -> Result<(), ProtocolError> {
        if !self.exit_due || self.is_sending() {
            return Ok(());
        }
        let call = Call { kind: CallKind::Exit, id: 0, function: 0, len: 0, attachments: 0 };
        let mut sent = link.send(call, BEGUN, &[])?;
        if sent.is_none() {
            link.want_room();
            // Room that was made between the two steps has not been announced.
            sent = link.send(call, BEGUN, &[])?;
        }
        self.exit_due = sent.is_none();
        link.wake_worker();
        Ok(())
    }
}
