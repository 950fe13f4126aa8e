/*
 * pratique without an interpreter: `run` is asked of this host's broker, everything else is the Python command's.
 *
 *   cc -O2 -static -o /usr/local/bin/pratique deploy/client.c
 *
 * It speaks what pratique/quick.py speaks (runtime/broker/server.py and replies.py say what that is), and executes the
 * Python command (PRATIQUE_COMMAND, or the path compiled in) wherever that one would go on by itself: no broker, another
 * store or state folder, an image that has to be pulled first.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef COMMAND
#define COMMAND "/opt/pratique/bin/pratique"
#endif

enum { LIMIT = 256 * 1024, LOST = 125 };

static const int forwarded[] = {SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM, SIGWINCH};

static const char *variable(const char *name, const char *otherwise)
{
	const char *value = getenv(name);
	return value != NULL && *value != '\0' ? value : otherwise;
}

static void command(char **argv)
{
	const char *path = variable("PRATIQUE_COMMAND", COMMAND);
	execv(path, argv);
	fprintf(stderr, "pratique: %s: %s\n", path, strerror(errno));
	_exit(LOST);
}

static int add(char *message, size_t *length, const char *word)
{
	size_t size = strlen(word) + 1;
	if (*length + size > LIMIT)
		return -1;
	memcpy(message + *length, word, size);
	*length += size;
	return 0;
}

/* A connection on which the words were asked, or -1. */
static int ask(int argc, char **argv, char *buffer)
{
	const char *state = variable("PRATIQUE_STATE", "/run/pratique");
	const char *words[] = {"1", argv[1], variable("PRATIQUE_STORE", "/var/lib/pratique"), state};
	size_t length = 0;
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (add(buffer, &length, words[i]) < 0)
			return -1;
	for (int i = 2; i < argc; i++)
		if (strncmp(argv[i], "--st", 4) == 0 || add(buffer, &length, argv[i]) < 0)
			return -1;

	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int written = snprintf(address.sun_path, sizeof address.sun_path, "%s.sock", state);
	if (written < 0 || (size_t)written >= sizeof address.sun_path)
		return -1;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	const int streams[] = {0, 1, 2};
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof streams)];
	} control = {0};
	struct iovec part = {.iov_base = buffer, .iov_len = length};
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof streams);
	memcpy(CMSG_DATA(header), streams, sizeof streams);
	if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0 || sendmsg(fd, &message, MSG_NOSIGNAL) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static void print(int fd, const char *text, size_t length)
{
	while (length > 0) {
		ssize_t written = write(fd, text, length);
		if (written < 0 && errno == EINTR)
			continue;
		if (written < 0)
			return; /* whoever read it is gone */
		text += written;
		length -= (size_t)written;
	}
}

/* The exit code; -1 if the broker leaves it to us. */
static int answers(int fd, int signals, char *buffer)
{
	struct pollfd polled[] = {{.fd = fd, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
	for (;;) {
		if (poll(polled, 2, -1) < 0 && errno != EINTR)
			break;
		struct signalfd_siginfo info;
		if (polled[1].revents != 0 && read(signals, &info, sizeof info) == sizeof info) {
			char number = (char)info.ssi_signo;
			(void)send(fd, &number, 1, MSG_NOSIGNAL);
		}
		if (polled[0].revents == 0)
			continue;
		ssize_t length = recv(fd, buffer, LIMIT, 0);
		if (length < 0 && errno == EINTR)
			continue;
		if (length <= 0)
			break;
		if (buffer[0] == '1' || buffer[0] == '2') {
			print(buffer[0] - '0', buffer + 1, (size_t)length - 1);
		} else if (buffer[0] == 'x') {
			buffer[length] = '\0';
			return atoi(buffer + 1);
		} else if (buffer[0] == '-') {
			return -1;
		} else {
			break;
		}
	}
	fputs("pratique: broker: the connection was lost; `pratique ps` shows what runs\n", stderr);
	return LOST;
}

int main(int argc, char **argv)
{
	static char buffer[LIMIT + 1];
	if (argc < 2 || strcmp(argv[1], "run") != 0)
		command(argv);
	sigset_t set, before;
	sigemptyset(&set);
	for (size_t i = 0; i < sizeof forwarded / sizeof *forwarded; i++)
		sigaddset(&set, forwarded[i]);
	sigprocmask(SIG_BLOCK, &set, &before);
	int fd = ask(argc, argv, buffer);
	int code = fd < 0 ? -1 : answers(fd, signalfd(-1, &set, SFD_CLOEXEC), buffer);
	if (code >= 0)
		return code;
	sigprocmask(SIG_SETMASK, &before, NULL);
	command(argv);
}
