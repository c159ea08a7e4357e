# A client made of Perl's `Protocol::WebSocket`, which has the handshake and the frames but no socket: hixie-75, 0 and 8. The
# README says what it understands and reports. Argument: the version.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/..";
use Encode ();
use IO::Select;
use IO::Socket::INET;
use JSON::PP ();
use MIME::Base64 'decode_base64';
use Protocol::WebSocket::Frame;
use Protocol::WebSocket::Handshake::Client;
use Reporting;

use constant PIECE_BYTES       => 1 << 20;
use constant NO_CODE_RECEIVED  => 1005;
use constant NO_CLOSE_RECEIVED => 1006;

$SIG{PIPE} = 'IGNORE';

my %names    = reverse %$VERSION_NAMES;
my $version  = $names{$ARGV[0]};
my $is_hixie = $version =~ /hixie-75|hybi-00/;
my ($id, $socket, $handshake, $frames, $first, $code, $reason, $clean, $has_closed);
my $json = JSON::PP->new->utf8;

my %commands = (
    open        => \&open_connection,
    send        => sub { write_frame('text', Encode::encode('UTF-8', $_[0])) },
    send_size   => sub { write_frame('text', text_of($_[0])) },
    send_binary => sub { write_frame('binary', decode_base64($_[0])) },
    ping        => sub { write_frame('ping', $_[0]) },
    close       => \&close_connection,
    fragments   => sub {
        my @parts = map { Encode::encode('UTF-8', $_) } @{$_[0]};
        for my $place (0 .. $#parts) {
            write_frame($place == 0 ? 'text' : 'continuation', $parts[$place], fin => $place == $#parts ? 1 : 0);
        }
    },
    abort => sub {
        return unless $socket;
        reset_at_end($socket);
        close $socket;
        undef $socket;
    },
);

my $lines = '';
while (1) {
    my $select = IO::Select->new(\*STDIN, $socket // ());
    for my $ready ($select->can_read) {
        if ($ready != \*STDIN) {
            # A command may just have dropped it.
            take_bytes() if $socket && $ready == $socket;
            next;
        }
        sysread STDIN, $lines, PIECE_BYTES, length $lines or exit;
        while ($lines =~ s/^(.*)\n//) {
            my $command = $json->decode($1);
            my ($word) = grep { exists $command->{$_} } keys %commands;
            $commands{$word}->($command->{$word}, $command);
        }
    }
}

sub open_connection {
    my ($url, $command) = @_;
    $id = $command->{id};
    ($first, $code, $reason, $clean, $has_closed) = ('', $is_hixie ? undef : NO_CLOSE_RECEIVED, '', 0, 0);
    $handshake = Protocol::WebSocket::Handshake::Client->new(url => $url, version => $version);
    $handshake->req->subprotocol($command->{subprotocol}) if defined $command->{subprotocol};
    # The library's own limit is 64 KiB.
    $frames = Protocol::WebSocket::Frame->new(version => $version, max_payload_size => 0);
    my ($host) = $url =~ m{^ws://([^/]+)};
    $socket = IO::Socket::INET->new(PeerAddr => $host) or return report('failed', id => $id, error => "$!");
    send_at_once($socket);
    write_bytes($handshake->to_string);
}

sub take_bytes {
    my $read = sysread $socket, my $bytes, PIECE_BYTES;
    return end_connection() unless $read;
    if (!$handshake->is_done) {
        $first .= $bytes;
        if (!$handshake->parse($bytes)) {
            my ($status) = $first =~ m{^HTTP/1\.1 (?!101)(\d{3})};
            my @why = $status ? ('refused', status => $status + 0) : ('failed', error => $handshake->error);
            report(@why, id => $id);
            return drop();
        }
        return unless $handshake->is_done;
        report('opened', id => $id, subprotocol => $handshake->res->subprotocol);
    }
    $frames->append($bytes);
    while ($socket && defined(my $payload = $frames->next_bytes)) {
        take($frames->opcode, $payload);
    }
}

sub take {
    my ($opcode, $payload) = @_;
    return write_frame('pong', $payload) if $opcode == 9;
    return report('pong', id => $id, data => $payload) if $opcode == 10;
    return report_message($payload, $opcode == 2, id => $id) if $opcode != 8;
    $clean = 1;
    ($code, $reason) = length $payload ? unpack 'na*', $payload : (NO_CODE_RECEIVED, '') unless $is_hixie;
    write_frame('close', substr $payload, 0, 2) unless $has_closed;
    $has_closed = 1;
}

sub close_connection {
    my ($wanted, $command) = @_;
    return shutdown $socket, 1 if $version eq 'draft-hixie-75';
    $has_closed = 1;
    write_frame('close', defined $wanted ? pack 'na*', $wanted, $command->{reason} // '' : '');
}

sub write_frame {
    my ($type, $payload, %options) = @_;
    write_bytes($handshake->build_frame(type => $type, buffer => $payload, max_payload_size => 0, %options)->to_bytes);
}

sub write_bytes {
    my ($bytes) = @_;
    while (length $bytes) {
        my $written = syswrite $socket, $bytes;
        return unless $written;
        substr $bytes, 0, $written, '';
    }
}

sub end_connection {
    report('closed', id => $id, code => $code, reason => $reason, clean => $clean ? JSON::PP::true : JSON::PP::false);
    drop();
}

sub drop {
    close $socket;
    undef $socket;
}
