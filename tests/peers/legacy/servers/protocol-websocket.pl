# An echo server made of Perl's `Protocol::WebSocket`, which has the handshake and the frames but no socket: hixie-75, 0, 8
# and 13. The README says what it understands and reports.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/..";
use IO::Select;
use IO::Socket::INET;
use Protocol::WebSocket::Frame;
use Protocol::WebSocket::Handshake::Server;
use Reporting;

use constant PIECE_BYTES       => 1 << 20;
use constant NO_CODE_RECEIVED  => 1005;
use constant NO_CLOSE_RECEIVED => 1006;

$SIG{PIPE} = 'IGNORE';

my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 64) or die $!;
my $select = IO::Select->new($listener, \*STDIN);
my %connections;
report('listening', port => $listener->sockport);

while (1) {
    for my $ready ($select->can_read) {
        exit if $ready == \*STDIN;
        if   ($ready == $listener) { accept_connection() }
        else                       { read_from($connections{$ready}) }
    }
}

sub accept_connection {
    my $socket = $listener->accept or return;
    send_at_once($socket);
    $connections{$socket} = {socket => $socket, handshake => Protocol::WebSocket::Handshake::Server->new};
    $select->add($socket);
}

sub read_from {
    my ($connection) = @_;
    my $read = sysread $connection->{socket}, my $bytes, PIECE_BYTES;
    return leave($connection) unless $read;
    $connection->{frames} ? take_frames($connection, $bytes) : shake_hands($connection, $bytes);
}

sub shake_hands {
    my ($connection, $bytes) = @_;
    my $handshake = $connection->{handshake};
    return leave($connection) unless $handshake->parse($bytes);
    return unless $handshake->is_done;
    my $version = $handshake->version;
    my $request = $handshake->req;
    ($connection->{id}) = $request->resource_name =~ /\bid=([^&]*)/;
    $connection->{version}  = $version;
    $connection->{is_hixie} = $version =~ /hixie-75|hybi-00/;
    my ($subprotocol) = split /\s*,\s*/, $request->subprotocol // '';
    $handshake->res->subprotocol($subprotocol) if defined $subprotocol;
    write_to($connection, $handshake->to_string);
    # The library's own limit is 64 KiB.
    $connection->{frames} = $handshake->build_frame(max_payload_size => 0);
    report(
        'opened',
        id          => $connection->{id},
        version     => $VERSION_NAMES->{$version},
        subprotocol => $subprotocol
    );
    write_frame($connection, 'text', 'welcome') if $request->resource_name =~ /\bgreet=/;
    take_frames($connection, $bytes);
}

sub take_frames {
    my ($connection, $bytes) = @_;
    my $frames = $connection->{frames};
    $frames->append($bytes);
    while (!$connection->{over} && defined(my $payload = $frames->next_bytes)) {
        take($connection, $frames->opcode, $payload);
    }
}

sub take {
    my ($connection, $opcode, $payload) = @_;
    return take_close($connection, $payload) if $opcode == 8;
    return write_frame($connection, 'pong', $payload) if $opcode == 9;
    if ($opcode == 10) {
        write_frame($connection, 'text', "pong $payload") if length $payload;
        return;
    }
    my $is_binary = $opcode == 2;
    report_message($payload, $is_binary, id => $connection->{id});
    return obey($connection, split / /, $payload) if !$is_binary && $payload =~ /^!/;
    write_frame($connection, $is_binary ? 'binary' : 'text', $payload);
}

sub take_close {
    my ($connection, $payload) = @_;
    if ($connection->{is_hixie}) {
        $connection->{clean} = 1;
    }
    else {
        my ($code, $reason) = length $payload ? unpack 'na*', $payload : (NO_CODE_RECEIVED, '');
        @$connection{qw(code reason)} = ($code, $reason);
    }
    write_frame($connection, 'close', substr $payload, 0, 2) unless $connection->{has_closed};
    leave($connection);
}

sub obey {
    my ($connection, $word, @rest) = @_;
    if    ($word eq '!ping') { write_frame($connection, 'ping', $rest[0]) }
    elsif ($word eq '!send') { write_frame($connection, 'text', join ' ', @rest) }
    elsif ($word eq '!fragments') {
        for my $place (0 .. $#rest) {
            my $type = $place == 0 ? 'text' : 'continuation';
            write_frame($connection, $type, $rest[$place], fin => $place == $#rest ? 1 : 0);
        }
    }
    elsif ($word eq '!close') {
        # hixie-75 has no more than the end of the connection.
        return leave($connection) if $connection->{version} eq 'draft-hixie-75';
        my ($code, @reason) = @rest;
        $connection->{has_closed} = 1;
        write_frame($connection, 'close', defined $code ? pack 'na*', $code, join ' ', @reason : '');
    }
    elsif ($word eq '!abort') {
        reset_at_end($connection->{socket});
        leave($connection);
    }
}

sub write_frame {
    my ($connection, $type, $payload, %options) = @_;
    my %unlimited = (max_payload_size => 0);
    my $frame = $connection->{handshake}->build_frame(type => $type, buffer => $payload, %unlimited, %options);
    write_to($connection, $frame->to_bytes);
}

sub write_to {
    my ($connection, $bytes) = @_;
    while (length $bytes) {
        my $written = syswrite $connection->{socket}, $bytes;
        return unless $written;
        substr $bytes, 0, $written, '';
    }
}

sub leave {
    my ($connection) = @_;
    $connection->{over} = 1;
    $select->remove($connection->{socket});
    delete $connections{$connection->{socket}};
    close $connection->{socket};
    return unless $connection->{frames};
    my $code = $connection->{is_hixie} ? undef : $connection->{code} // NO_CLOSE_RECEIVED;
    # In hixie-75 there is no other end than that of the connection.
    my $knows = $connection->{version} eq 'draft-ietf-hybi-00';
    my %clean = $knows ? (clean => $connection->{clean} ? JSON::PP::true : JSON::PP::false) : ();
    report('closed', id => $connection->{id}, code => $code, reason => $connection->{reason} // '', %clean);
}
