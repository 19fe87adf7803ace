;; Fills all its memory with ones for clients with port 666, the server table included.
;; Takes the first server that has a weight according to the table.
(module
  (memory (export "memory") 2)
  (func (export "wvs_abi") (result i32) (i32.const 0x10000))
  (func (export "wvs_region") (param $kind i32) (param $size i32) (result i32)
    (i32.mul (i32.const 4096) (i32.add (i32.const 1) (local.get $kind))))
  (func (export "wvs_schedule") (param $n i32) (result i32)
    (local $index i32)
    (if (i32.eq (i32.load16_u (i32.const 8200)) (i32.const 666))
      (then (memory.fill (i32.const 0) (i32.const 0xFF) (i32.const 131072))))
    (loop $next
      (if (i32.load (i32.add (i32.const 12292) (i32.shl (local.get $index) (i32.const 5))))
        (then (return (local.get $index))))
      (local.set $index (i32.add (local.get $index) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $index) (local.get $n))))
    (i32.const -1)))
