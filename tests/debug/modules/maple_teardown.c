// SPDX-License-Identifier: GPL-2.0
/*
 * Destroys a maple tree of many ranges, with or without an inner node that has
 * exactly 15 children.  In RCU mode, Linux 7.3 does not survive that node; see
 * docs/devel/maple-tree.rst.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt
#include <linux/maple_tree.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/xarray.h>

static bool rcu;
module_param(rcu, bool, 0444);
MODULE_PARM_DESC(rcu, "the tree is in RCU mode");

static bool fifteen;
module_param(fifteen, bool, 0444);
MODULE_PARM_DESC(fifteen, "stop at a tree with such a node, not without");

static unsigned long least;
module_param(least, ulong, 0444);
MODULE_PARM_DESC(least, "ranges that the tree shall have");

/*
 * An encoded node is a pointer to a node, which is aligned to 256 bytes, with
 * the node's type in bits 3 to 6.
 */
static struct maple_node *enode_node(void *enode)
{
	return (void *)((unsigned long)enode & ~MAPLE_NODE_MASK);
}

static enum maple_type enode_type(void *enode)
{
	return ((unsigned long)enode >> 3) & 15;
}

static void *child(void *enode, int i)
{
	void *entry = rcu_dereference_protected(enode_node(enode)->mr64.slot[i],
						true);

	/*
	 * A last slot without a child contains metadata.  enode_node() returns
	 * NULL for metadata, because metadata is less than 256.
	 */
	return enode_node(entry) && enode_type(entry) ? entry : NULL;
}

/*
 * Among @enode and all nodes below it, count those that cause the oops in RCU
 * mode.  Such a node has 15 children, and its children are not leaves.  The
 * root does not cause the oops, because mt_destroy_walk() clears the root's
 * metadata.
 */
static int count_fifteen(void *enode, bool root)
{
	int i, children = 0, n = 0;

	if (enode_type(enode) != maple_range_64 ||
	    enode_type(child(enode, 0)) != maple_range_64)
		return 0;
	for (i = 0; i < MAPLE_RANGE64_SLOTS && child(enode, i); i++) {
		n += count_fifteen(child(enode, i), false);
		children++;
	}
	return n + (!root && children == MAPLE_RANGE64_SLOTS - 1);
}

static int fifteens(struct maple_tree *mt)
{
	void *root = rcu_dereference_protected(mt->ma_root, true);

	return xa_is_node(root) ? count_fifteen(root, true) : 0;
}

static int __init maple_teardown_init(void)
{
	static struct maple_tree mt;
	unsigned long i;
	int r, n = 0;

	mt_init_flags(&mt, rcu ? MT_FLAGS_USE_RCU : 0);
	/* Counting visits the whole tree, so count after every 64th store only */
	for (i = 0; i < 1UL << 16; i++) {
		r = mtree_store_range(&mt, i, i, xa_mk_value(i & 1), GFP_KERNEL);
		if (r) {
			mtree_destroy(&mt);
			return r;
		}
		if (i + 1 < least || mt_height(&mt) < 4 || i % 64)
			continue;
		n = fifteens(&mt);
		pr_debug("%lu ranges: %d\n", i + 1, n);
		if (!!n == fifteen)
			break;
		cond_resched();
	}
	pr_info("%lu ranges, height %u, %d nodes of 15 children, %sRCU\n",
		i + 1, mt_height(&mt), n, rcu ? "" : "no ");
	if (!!n != fifteen) {
		mtree_destroy(&mt);
		return -ERANGE;
	}
	mtree_destroy(&mt);
	rcu_barrier();
	pr_info("destroyed\n");
	return 0;
}

static void __exit maple_teardown_exit(void)
{
}

module_init(maple_teardown_init);
module_exit(maple_teardown_exit);
MODULE_DESCRIPTION("Destroys maple trees");
MODULE_LICENSE("GPL");
