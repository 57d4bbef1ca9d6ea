/* QEMU TCG plugin: the exact number of guest instructions (and of loads and stores) between the calls of two marker
 * functions, dunlin_region_begin and dunlin_region_end. The guest writes nothing and carries no overhead but the two
 * calls: an empty region counts 2 (the return of the first marker and the call of the second).
 *
 * The public plugin ABI is declared here, because distributions package QEMU without its header:
 *   -DAPI=1   QEMU 7.2 to 8.1
 *   -DAPI=2   QEMU 8.2 and later
 * Build:      cc -O2 -fPIC -shared -fvisibility=hidden -DAPI=1 -o libregioncount.so regioncount.c
 * Arguments:  begin=SYMBOL|0xADDRESS, end=SYMBOL|0xADDRESS, mem=on (loads and stores too), out=FILE (else stderr)
 * Output:     one line per region, "region N insns I [loads L stores S]", and "total insns T" at the end
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#ifndef API
#define API 1
#endif

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*udata_cb)(unsigned vcpu, void *data);
typedef void (*translation_cb)(plugin_id, struct qemu_plugin_tb *);
typedef void (*exit_cb)(plugin_id, void *);
typedef void (*memory_cb)(unsigned vcpu, uint32_t info, uint64_t address, void *data);
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, translation_cb);
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, udata_cb, int flags, void *data);
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, udata_cb, int flags, void *data);
extern void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, memory_cb, int flags, int rw, void *data);
extern bool qemu_plugin_mem_is_store(uint32_t info);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
extern const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *);
extern void qemu_plugin_register_atexit_cb(plugin_id, exit_cb, void *);

EXPORT int qemu_plugin_version = API;

struct marker {
    const char *name;
    uint64_t address;
    bool known;
};
static struct marker begin = {"dunlin_region_begin", 0, false};
static struct marker end = {"dunlin_region_end", 0, false};
static uint64_t total, loads, stores;
static uint64_t total_at_begin, loads_at_begin, stores_at_begin;
static unsigned regions;
static bool inside, count_memory;
static FILE *out;

static void on_block(unsigned vcpu, void *instructions) { total += (uintptr_t)instructions; }

static void on_memory(unsigned vcpu, uint32_t info, uint64_t address, void *data)
{
    if (qemu_plugin_mem_is_store(info))
        stores++;
    else
        loads++;
}

/* A block is counted when it is entered: `rest` is how much of it, from the marker on, has not run yet. */
static void on_begin(unsigned vcpu, void *rest)
{
    total_at_begin = total - (uintptr_t)rest;
    loads_at_begin = loads;
    stores_at_begin = stores;
    inside = true;
}

static void on_end(unsigned vcpu, void *rest)
{
    if (!inside)
        return;
    inside = false;
    fprintf(out, "region %u insns %llu", regions++, (unsigned long long)(total - (uintptr_t)rest - total_at_begin));
    if (count_memory)
        fprintf(out, " loads %llu stores %llu", (unsigned long long)(loads - loads_at_begin),
                (unsigned long long)(stores - stores_at_begin));
    fputc('\n', out);
    fflush(out);
}

static bool is_marker(struct marker *m, struct qemu_plugin_insn *insn)
{
    uint64_t address = qemu_plugin_insn_vaddr(insn);
    if (m->known)
        return address == m->address;
    const char *symbol = qemu_plugin_insn_symbol(insn);
    if (symbol && !strcmp(symbol, m->name)) {
        m->address = address;
        m->known = true;
        return true;
    }
    return false;
}

static void on_translation(plugin_id id, struct qemu_plugin_tb *block)
{
    size_t n = qemu_plugin_tb_n_insns(block);
    qemu_plugin_register_vcpu_tb_exec_cb(block, on_block, 0, (void *)(uintptr_t)n);
    for (size_t k = 0; k < n; k++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(block, k);
        void *rest = (void *)(uintptr_t)(n - k);
        if (is_marker(&begin, insn))
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_begin, 0, rest);
        if (is_marker(&end, insn))
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_end, 0, rest);
        if (count_memory)
            qemu_plugin_register_vcpu_mem_cb(insn, on_memory, 0, 3, NULL);
    }
}

static void on_exit_of_guest(plugin_id id, void *data)
{
    fprintf(out, "total insns %llu\n", (unsigned long long)total);
    fflush(out);
}

static void set_marker(struct marker *m, const char *text)
{
    if (!strncmp(text, "0x", 2)) {
        m->address = strtoull(text, 0, 16) & ~1ull; /* bit 0 is the Thumb flag */
        m->known = true;
    } else {
        m->name = text;
    }
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    out = stderr;
    for (int i = 0; i < argc; i++) {
        if (!strncmp(argv[i], "begin=", 6)) {
            set_marker(&begin, argv[i] + 6);
        } else if (!strncmp(argv[i], "end=", 4)) {
            set_marker(&end, argv[i] + 4);
        } else if (!strcmp(argv[i], "mem=on")) {
            count_memory = true;
        } else if (!strncmp(argv[i], "out=", 4)) {
            out = fopen(argv[i] + 4, "w");
            if (!out)
                return -1;
        } else {
            fprintf(stderr, "regioncount: bad argument %s\n", argv[i]);
            return -1;
        }
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_atexit_cb(id, on_exit_of_guest, NULL);
    return 0;
}
