/* The smallest honest streaming client in C: one epoll loop, keep-alive, closed loop,
 * kernel receive stamps, one record per read. It is the physical limit that the Python
 * engine is held against. It counts events and finds the end of an answer by its last
 * bytes; it parses nothing else.
 *
 *   cc -O2 -o client client.c && ./client PORT CONCURRENCY REQUESTS TOKENS
 *
 * prints one JSON line: events, wall and CPU seconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct record {
    long long kernel_ns, user_ns;
    int stream, events;
};
struct stream {
    int fd;
    char tail[8];
    int tail_len;
};

static long long now_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static struct record *records;
static long used;
static int sent, done, wanted, tokens;

static void send_request(struct stream *s) {
    char body[256], text[640];
    int n = snprintf(body, sizeof body,
                     "{\"prompt\":\"a %d b\",\"max_tokens\":%d,\"stream\":true}", sent, tokens);
    n = snprintf(text, sizeof text,
                 "POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-Request-Id: pd-%d\r\n"
                 "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
                 sent, n, body);
    if (send(s->fd, text, n, 0) != n) {
        perror("send");
        exit(1);
    }
    s->tail_len = 0;
    sent++;
}

static int read_some(struct stream *s, int index) {
    static char data[65536];
    char control[64];
    struct iovec io = {data, sizeof data};
    struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control,
                       .msg_controllen = sizeof control};
    ssize_t n = recvmsg(s->fd, &m, 0);
    if (n <= 0) {
        fprintf(stderr, "connection closed\n");
        exit(1);
    }
    struct record *r = &records[used++];
    r->user_ns = now_ns(CLOCK_MONOTONIC);
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    if (c) {
        struct timespec t;
        memcpy(&t, CMSG_DATA(c), sizeof t);
        r->kernel_ns = t.tv_sec * 1000000000LL + t.tv_nsec;
    }
    r->stream = index;
    r->events = 0;
    for (char *p = data; (p = memmem(p, data + n - p, "\n\n", 2)); p += 2) r->events++;
    int keep = n < 5 ? (int)n : 5, old = s->tail_len;
    if (old + keep > 5) {
        memmove(s->tail, s->tail + old + keep - 5, 5 - keep);
        old = 5 - keep;
    }
    memcpy(s->tail + old, data + n - keep, keep);
    s->tail_len = old + keep;
    return s->tail_len == 5 && !memcmp(s->tail, "0\r\n\r\n", 5);
}

int main(int argc, char **argv) {
    if (argc != 5) return fprintf(stderr, "usage: client PORT CONC REQUESTS TOKENS\n"), 2;
    int port = atoi(argv[1]), streams = atoi(argv[2]);
    wanted = atoi(argv[3]);
    tokens = atoi(argv[4]);
    records = malloc(sizeof *records * ((long)wanted * (tokens + 8) + 16));
    struct stream *all = calloc(streams, sizeof *all);
    int poll = epoll_create1(0), one = 1;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int k = 0; k < streams; k++) {
        all[k].fd = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(all[k].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(all[k].fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one);
        if (connect(all[k].fd, (struct sockaddr *)&to, sizeof to)) return perror("connect"), 1;
        struct epoll_event e = {.events = EPOLLIN, .data.u32 = k};
        epoll_ctl(poll, EPOLL_CTL_ADD, all[k].fd, &e);
    }
    long long start = now_ns(CLOCK_MONOTONIC), cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID);
    for (int k = 0; k < streams && sent < wanted; k++) send_request(&all[k]);
    while (done < wanted) {
        struct epoll_event ready[256];
        int n = epoll_wait(poll, ready, 256, -1);
        for (int k = 0; k < n; k++) {
            struct stream *s = &all[ready[k].data.u32];
            if (read_some(s, ready[k].data.u32)) {
                done++;
                if (sent < wanted) send_request(s);
            }
        }
    }
    long long events = 0;
    for (long k = 0; k < used; k++) events += records[k].events;
    printf("{\"events\": %lld, \"reads\": %ld, \"wall_s\": %.6f, \"cpu_s\": %.6f}\n", events, used,
           (now_ns(CLOCK_MONOTONIC) - start) / 1e9, (now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu) / 1e9);
    return 0;
}
