//! Who drops closures and results, when, and how often: exactly once, on every path.

use crate::support::*;

/// Its destructor blocks.
struct BlocksInDrop {
    begun: Gate,
    go_on: Gate,
}

impl Drop for BlocksInDrop {
    fn drop(&mut self) {
        self.begun.open();
        self.go_on.pass();
    }
}

#[test]
fn a_result_whose_destructor_blocks_does_not_hold_up_other_tasks() {
    guarded(|| {
        let pool = pool(2);
        let (handle_dropped, begun, go_on) = (Gate::new(), Gate::new(), Gate::new());
        let result = BlocksInDrop { begun: begun.clone(), go_on: go_on.clone() };
        let go = handle_dropped.clone();
        drop(pool.submit(move || {
            go.pass();
            result
        }));
        handle_dropped.open();
        begun.pass();
        pool.submit(move || go_on.open()).result().unwrap();
    });
}
