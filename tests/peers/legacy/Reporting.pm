package Reporting;

# What processes of Perl share: reports as JSON lines, and what the tests send.

use strict;
use warnings;
use Digest::SHA 'sha1_hex';
use Encode ();
use Exporter 'import';
use JSON::PP ();
use Socket qw(SOL_SOCKET SO_LINGER IPPROTO_TCP TCP_NODELAY);

our @EXPORT = qw(report report_message text_of send_at_once reset_at_end $VERSION_NAMES);

use constant TEXT_SHOWN_BYTES => 200;

# As the library calls them.
our $VERSION_NAMES = {
    'draft-hixie-75'     => 'hixie-75',
    'draft-ietf-hybi-00' => '0',
    'draft-ietf-hybi-10' => '8',
    'draft-ietf-hybi-17' => '13',
};
my $json = JSON::PP->new->utf8->canonical;
$| = 1;

sub report {
    my ($event, %details) = @_;
    print $json->encode({event => $event, %details}), "\n";
}

sub report_message {
    my ($bytes, $is_binary, %details) = @_;
    my %shown = length $bytes <= TEXT_SHOWN_BYTES && !$is_binary ? (text => Encode::decode('UTF-8', $bytes)) : ();
    my $binary = $is_binary ? JSON::PP::true : JSON::PP::false;
    report('message', %details, %shown, binary => $binary, bytes => length $bytes, sha1 => sha1_hex($bytes));
}

# A text of ASCII alone in which a lost, doubled or swapped part shows: the length of the period is a prime.
sub text_of {
    my ($bytes) = @_;
    my $period = join '', map {chr} 36 .. 118;
    return substr $period x ($bytes / length($period) + 1), 0, $bytes;
}

sub send_at_once {
    my ($socket) = @_;
    $socket->setsockopt(IPPROTO_TCP, TCP_NODELAY, 1);
}

# With this the end of a connection is a reset, the rudest of all.
sub reset_at_end {
    my ($socket) = @_;
    $socket->setsockopt(SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0);
}

1;
