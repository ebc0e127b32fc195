/* A fast streaming server for the bench of shards: one epoll thread, absolute schedule.
 * The known truth is the Python server's business; this one only has to keep a rate.
 *
 *   cc -O2 -o truth truth.c && ./truth TTFT_US ITL_US EVENTS
 *
 * prints its port; ends when its standard input closes, with one JSON line: events sent,
 * CPU seconds, lateness of its sends in us (mean and max).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define MAX_FD 8192
struct stream {
    long long due_ns;
    int fd, sent;
    size_t got;
    char request[4096];
};
static struct stream streams[MAX_FD];
static int heap[MAX_FD], heaped;
static long long events, late_ns, late_max_ns;
static char event_text[512], last_text[1024], head[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

static long long now_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}
static int before(int a, int b) { return streams[a].due_ns < streams[b].due_ns; }
static void push(int fd) {
    int k = heaped++;
    for (; k && before(fd, heap[(k - 1) / 2]); k = (k - 1) / 2) heap[k] = heap[(k - 1) / 2];
    heap[k] = fd;
}
static int pop(void) {
    int top = heap[0], last = heap[--heaped], k = 0;
    for (int c; (c = 2 * k + 1) < heaped; k = c) {
        if (c + 1 < heaped && before(heap[c + 1], heap[c])) c++;
        if (!before(heap[c], last)) break;
        heap[k] = heap[c];
    }
    heap[k] = last;
    return top;
}
static int chunk(char *to, const char *text, const char *finish) {
    char body[400];
    int n = snprintf(body, sizeof body,
                     "data: {\"id\":\"cmpl-00000000000000000000000000000000\",\"object\":"
                     "\"text_completion\",\"created\":1700000000,\"model\":\"truth\",\"choices\":"
                     "[{\"index\":0,\"text\":\"%s\",\"logprobs\":null,\"finish_reason\":%s,"
                     "\"stop_reason\":null}],\"usage\":null}\n\n",
                     text, finish);
    return sprintf(to, "%x\r\n%s\r\n", n, body);
}

int main(int argc, char **argv) {
    if (argc != 4) return fprintf(stderr, "usage: truth TTFT_US ITL_US EVENTS\n"), 2;
    long long ttft = atoll(argv[1]) * 1000, itl = atoll(argv[2]) * 1000;
    int wanted = atoi(argv[3]), one = 1;
    int event_size = chunk(event_text, " w000", "null");
    int last_size = chunk(last_text, " w000", "\"length\"");
    last_size += sprintf(last_text + last_size, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
    struct sockaddr_in at = {.sin_family = AF_INET};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(listener, (void *)&at, size) || listen(listener, 4096)) return perror("listen"), 1;
    getsockname(listener, (void *)&at, &size);
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    int poll = epoll_create1(0), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    int watched[] = {listener, timer, 0};
    for (int k = 0; k < 3; k++) {
        struct epoll_event e = {.events = EPOLLIN, .data.fd = watched[k]};
        epoll_ctl(poll, EPOLL_CTL_ADD, watched[k], &e);
    }
    for (;;) {
        long long now = now_ns(CLOCK_MONOTONIC);
        while (heaped && streams[heap[0]].due_ns <= now) {
            struct stream *s = &streams[pop()];
            char first[1024];
            int is_last = ++s->sent >= wanted;
            char *text = is_last ? last_text : event_text;
            int n = is_last ? last_size : event_size;
            if (s->sent == 1) {
                memcpy(first, head, sizeof head - 1);
                memcpy(first + sizeof head - 1, text, n);
                text = first;
                n += sizeof head - 1;
            }
            if (send(s->fd, text, n, MSG_NOSIGNAL) != n) continue;
            long long late = now - s->due_ns;
            late_ns += late;
            if (late > late_max_ns) late_max_ns = late;
            events++;
            s->due_ns += itl;
            if (!is_last) push(s->fd);
            now = now_ns(CLOCK_MONOTONIC);
        }
        if (heaped) {
            long long due = streams[heap[0]].due_ns;
            struct itimerspec t = {.it_value = {due / 1000000000, due % 1000000000}};
            timerfd_settime(timer, TFD_TIMER_ABSTIME, &t, NULL);
        }
        struct epoll_event ready[256];
        int n = epoll_wait(poll, ready, 256, -1);
        for (int k = 0; k < n; k++) {
            int fd = ready[k].data.fd;
            if (fd == 0) {
                printf("{\"events\": %lld, \"cpu_s\": %.4f, \"late_mean_us\": %.1f, "
                       "\"late_max_us\": %.1f}\n",
                       events, now_ns(CLOCK_PROCESS_CPUTIME_ID) / 1e9,
                       events ? late_ns / 1e3 / events : 0.0, late_max_ns / 1e3);
                return 0;
            }
            if (fd == timer) {
                char word[8];
                if (read(timer, word, 8) < 0) continue;
            } else if (fd == listener) {
                int made;
                while ((made = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    if (made >= MAX_FD) return fprintf(stderr, "too many streams\n"), 1;
                    setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    streams[made] = (struct stream){.fd = made};
                    struct epoll_event e = {.events = EPOLLIN, .data.fd = made};
                    epoll_ctl(poll, EPOLL_CTL_ADD, made, &e);
                }
            } else {
                struct stream *s = &streams[fd];
                ssize_t got = recv(fd, s->request + s->got, sizeof s->request - s->got - 1, 0);
                if (got <= 0) {
                    close(fd);
                    continue;
                }
                s->got += got;
                s->request[s->got] = 0;
                char *end = strstr(s->request, "\r\n\r\n"), *length;
                if (!end || !(length = strcasestr(s->request, "content-length:"))) continue;
                if (s->got < (size_t)(end + 4 - s->request) + atoi(length + 15)) continue;
                s->got = 0;
                s->sent = 0;
                s->due_ns = now_ns(CLOCK_MONOTONIC) + ttft;
                push(fd);
            }
        }
    }
}
