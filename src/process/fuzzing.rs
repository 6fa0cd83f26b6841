//! The functions of the parent that read bytes that a worker controls, for the fuzzer (`ci/fuzz.sh`).

use super::body::{Body, Element};
use super::link::{ParentEnd, Shared, scribble};
use super::parent::Raw;
use super::wire::{self, CALL_HEAD, Call, Hello, REPLY_HEAD, Ready, Reply, Report};
use super::{call, codec};
use crate::os::shm;

/// Everything that is decoded from a message or a body.
pub fn messages(data: &[u8]) {
    let _ = wire::decode::<Hello>(data);
    let _ = wire::decode::<Ready>(data);
    let _ = wire::decode::<Report>(data);
    if let Some(head) = data.first_chunk::<CALL_HEAD>() {
        let _ = Call::from_bytes(head);
    }
    if let Some(head) = data.first_chunk::<REPLY_HEAD>() {
        let _ = Reply::from_bytes(head);
    }
    let _ = call::codec_error(data);
    let _ = call::decode::<(u64, String, Vec<Option<i32>>)>(Body::of::<()>(data), codec::NESTING);
    let _ = call::decode::<Vec<Result<u8, String>>>(Body::of::<()>(data), codec::NESTING);
    let _ = call::decode::<String>(Body::of::<String>(data), codec::NESTING);
    let _ = call::decode::<Vec<u64>>(Body::of::<Vec<u64>>(data), codec::NESTING);
    for kind in 0..7 {
        let mut head = [0; REPLY_HEAD];
        head[24] = kind;
        if let Ok(Reply { kind, took, .. }) = Reply::from_bytes(&head) {
            let raw = Raw::Reply { kind, body: Body::of::<()>(data), pid: 1, name: None, limit: 1, nesting: 8, took };
            let _ = raw.into_body();
        }
    }
}

/// An intentional fault, to check that the fuzzer finds a message that decodes and contains something rare.
pub fn planted(data: &[u8]) {
    messages(data);
    if let Ok(hello) = wire::decode::<Hello>(data) {
        assert!(hello.name.len() < 2, "a fault on purpose");
    }
}

/// The shared memory, as a faulty worker might leave it.
pub fn replies(data: &[u8]) {
    let Some((tail, bytes)) = data.split_first_chunk::<8>() else { return };
    let page = rustix::param::page_size();
    let memory = shm::create(Shared::file_size(page, 1)).expect("there is memory");
    let shared = Shared::map(&memory, page, 1).expect("it can be mapped");
    let mut end = ParentEnd::new(&shared);
    scribble(&shared, u64::from_le_bytes(*tail), bytes);
    for _ in 0..256 {
        let Ok(Some(reply)) = end.receive() else { break };
        let Some(mut body) = Body::with_capacity(Element::BYTE, reply.len.min(1 << 20)) else { break };
        if reply.len > 1 << 20 || end.receive_body(&mut body, reply.len) != Ok(true) {
            break;
        }
    }
    let call = Call { kind: wire::CallKind::Task, id: 1, function: 1, len: 100, attachments: 0 };
    let _ = end.send(call, 1, &[1; 100]);
    let _ = end.send_more(&[2; 9000], 16);
}
