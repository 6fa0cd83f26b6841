use super::*;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

#[test]
fn a_number_is_no_longer_than_in_postcard() {
    let mut room = [0; 16];
    assert_eq!(to_slice(&5u64, &mut room).unwrap(), 1);
    assert_eq!(to_slice(&u64::MAX, &mut room).unwrap(), 10);
    assert_eq!(to_slice(&"abc", &mut room).unwrap(), 4);
    assert!(matches!(to_slice(&"abc", &mut room[..3]), Err(NotEncoded::NoRoom)));
}

#[test]
fn names_in_another_case_have_the_same_mark() {
    assert_eq!(mark("FirstOfAll"), mark("firstOfAll"));
    assert_eq!(mark("FirstOfAll"), mark("FIRST_OF_ALL"));
    assert_eq!(mark("FirstOfAll"), mark("first-of-all"));
    assert_ne!(mark("FirstOfAll"), mark("FirstOfTwo"));
    assert_ne!(mark("A"), mark("B"));
    assert_ne!(mark("Ä"), mark("Ö"));
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf(Option<String>),
    Branch { left: Box<Tree>, right: Box<Tree> },
    Many(Vec<(u32, i64)>, std::collections::BTreeMap<String, f64>),
    Empty,
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        any::<Option<String>>().prop_map(Tree::Leaf),
        (any::<Vec<(u32, i64)>>(), proptest::collection::btree_map(any::<String>(), -1e9..1e9, 0..4))
            .prop_map(|(list, map)| Tree::Many(list, map)),
        Just(Tree::Empty),
    ];
    leaf.prop_recursive(4, 16, 2, |inner| {
        (inner.clone(), inner).prop_map(|(left, right)| Tree::Branch { left: left.into(), right: right.into() })
    })
}

proptest! {
    #[test]
    fn values_come_back_as_they_were(tree in tree()) {
        let bytes = to_vec(&tree).unwrap();
        prop_assert_eq!(from_slice::<Tree>(&bytes), Ok(tree.clone()));
        let mut room = vec![0; bytes.len()];
        prop_assert_eq!(to_slice(&tree, &mut room).unwrap(), bytes.len());
        prop_assert_eq!(&room, &bytes);
    }

    #[test]
    fn any_bytes_are_a_value_or_an_error(bytes: Vec<u8>) {
        let _ = from_slice::<Tree>(&bytes);
        let _ = from_slice::<Vec<Result<u8, String>>>(&bytes);
        let _ = from_slice::<(f32, char, bool, [u16; 3])>(&bytes);
    }
}
