//! Blocks are as they were asked for, kept where there are magazines, and go back.

use std::thread;

use super::*;

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

fn kept() -> usize {
    MINE.with(|mine| mine.kept.get())
}

#[test]
fn a_class_holds_its_sizes_and_little_more() {
    for size in 1..=LARGEST {
        let class = Class::of(layout(size, 8)).unwrap();
        assert!(class.size >= size, "{size}: {class:?}");
        let more = class.size - size;
        assert!(more < 16 || more * 4 < class.size, "{size}: {class:?}");
        assert_eq!(class, Class::at(class.index), "{size}");
        assert_eq!(class.layout(), layout(class.size, ALIGN), "{size}");
    }
    assert_eq!(Class::of(layout(LARGEST + 1, 8)), None);
    assert_eq!(Class::of(layout(LARGEST, 8)).unwrap().index, SIZES - 1);
    // Of a task.
    let wide = Class::of(layout(300, 128)).unwrap();
    assert_eq!((wide.layout(), Class::at(wide.index)), (layout(320, WIDE_ALIGN), wide));
    assert_eq!(Class::of(layout(64, 128)), None);
    assert_eq!(Class::of(layout(4096, 4096)), None);
}

#[test]
fn what_is_given_back_is_what_comes_next() {
    let open = open();
    // SAFETY: of one layout, and each block is given back once.
    unsafe {
        for (size, align) in [(1, 1), (100, 8), (300, 128), (4600, 16), (LARGEST, 16)] {
            let layout = layout(size, align);
            let block = Allocator.alloc(layout);
            assert_eq!(block.addr() % align, 0);
            block.write_bytes(0xff, size);
            Allocator.dealloc(block, layout);
            assert!(kept() >= size);
            let again = Allocator.alloc_zeroed(layout);
            assert_eq!(again, block, "{size}");
            assert!((0..size).all(|at| again.add(at).read() == 0), "{size}");
            Allocator.dealloc(again, layout);
        }
    }
    drop(open);
    assert_eq!(kept(), 0);
}

#[test]
fn a_block_that_grows_keeps_what_is_in_it() {
    let _open = open();
    let mut size = 1;
    // SAFETY: sizes follow those of the block.
    unsafe {
        let mut block = Allocator.alloc(layout(size, 1));
        block.write(1);
        // Beyond what is kept, and back again.
        for next in [2, 16, 17, 1000, 1024, LARGEST, LARGEST + 1, 3 * LARGEST, LARGEST, 5, 3] {
            block = Allocator.realloc(block, layout(size, 1), next);
            for at in size..next {
                block.add(at).write((at as u8).wrapping_add(1));
            }
            assert!(
                (0..next).all(|at| block.add(at).read() == (at as u8).wrapping_add(1)),
                "{size}, {next}"
            );
            size = next;
        }
        Allocator.dealloc(block, layout(size, 1));
    }
}

#[test]
fn no_more_is_kept_than_the_limit_and_nothing_without_magazines() {
    let size = layout(5000, 8);
    // SAFETY: each block is given back once, as it was allocated.
    let all = |number: usize| unsafe {
        let blocks: Vec<_> = (0..number).map(|_| Allocator.alloc(size)).collect();
        for block in blocks {
            Allocator.dealloc(block, size);
        }
    };
    all(10);
    assert_eq!(kept(), 0);
    let open = open();
    all(2 * LIMIT / 5000);
    assert!(kept() <= LIMIT && kept() + 5120 > LIMIT, "{}", kept());
    drop(open);
    assert_eq!(kept(), 0);
}

#[test]
fn what_nobody_needs_goes_back() {
    let _open = open();
    let size = layout(1000, 8);
    // SAFETY: as above.
    let all = |number: usize| unsafe {
        let blocks: Vec<_> = (0..number).map(|_| Allocator.alloc(size)).collect();
        for block in blocks {
            Allocator.dealloc(block, size);
        }
    };
    all(100);
    settle();
    // They were needed, from the first to the last.
    assert_eq!(kept(), 100 * 1024);
    all(30);
    settle();
    assert_eq!(kept(), 30 * 1024);
    settle();
    assert_eq!(kept(), 0);
}

#[test]
fn a_block_may_be_given_back_on_another_thread() {
    let size = layout(2000, 8);
    // SAFETY: allocated so, and given back once.
    unsafe {
        let block = Allocator.alloc(size).expose_provenance();
        let kept = thread::spawn(move || {
            let _open = open();
            Allocator.dealloc(ptr::with_exposed_provenance_mut(block), size);
            kept()
        });
        assert_eq!(kept.join().unwrap(), 2048);
    }
}
